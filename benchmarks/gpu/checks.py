"""Correctness on a GPU, one step of the report for each function: `python -m gpu.checks STEP`.

Each comparison is with float64 on the CPU, with an eager step, or with the textbook. Inputs are drawn anew each time,
and the line of the journal has the seed.
"""

import contextlib
import copy
import gc
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from gpu.cases import DTYPES, LAYOUTS, SHAPES, laid_out
from gpu.journal import Comparisons
from rehearsal import REHEARSED, unless_rehearsed
from wgan_fast import CriticLoss, CriticStep, gradient_penalty, optim, reference
from wgan_fast._library import extension  # noqa: F401 (registers the operators)
from wgan_fast.bench import convolutional, mlp

native = torch.ops.wgan_fast
STEPS = unless_rehearsed(100, 12)
REPLAYS = unless_rehearsed(1000, 20)
WARM_UP = 6  # eager steps, the capture and a replay
#: Largest error of a result, as a share of its norm. Rounding the result alone makes a third of it.
BOUND = {torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2, torch.float32: 1e-5, torch.float64: 1e-13}


def error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference, in norms of what is expected; NaN where a value was not written."""
    expected = expected.detach().double().cpu()
    difference = (found.detach().double().cpu() - expected).norm().item()
    return difference / max(expected.norm().item(), torch.finfo(torch.float64).tiny) if difference else 0.0


def check(name: str, found: float, bound: float) -> dict[str, float]:
    if not found <= bound:
        raise AssertionError(f"{name}: expected at most {bound}, got {found}")
    return {name: found, "bound": bound}


def new_seed() -> int:
    return int.from_bytes(os.urandom(4), "little")


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """New tensors hold NaN, and bytes 255, until somebody writes them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def drawn(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor]:
    """The same numbers on the GPU, and on the CPU in float64."""
    values = laid_out(torch.randn(shape).to(dtype), layout)
    return laid_out(values.cuda(), layout), values.double()


def interpolation(*case: Any) -> float:
    (x, x64), (y, y64) = drawn(*case), drawn(*case)
    t = torch.rand(len(x), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    return error(native.interpolate(x, y, t.cuda()), reference.interpolate(x64, y64, t.double()))


FORMULA = 10.0, 1.0, 2.0, False


def norm_penalty(*case: Any) -> float:
    x, x64 = drawn(*case)
    found, expected = native.gradient_norm_penalty(x, *FORMULA), reference.gradient_norm_penalty(x64, *FORMULA)
    return max(map(error, found, expected))


def norm_penalty_backward(*case: Any) -> float:
    x, x64 = drawn(*case)
    leaf = x64.clone().requires_grad_()
    reference.gradient_norm_penalty(leaf, *FORMULA)[0].backward()
    _, norms = native.gradient_norm_penalty(x, *FORMULA)
    one = torch.ones((), dtype=norms.dtype).cuda()
    return error(native.gradient_norm_penalty_backward(one, x, norms, *FORMULA), leaf.grad)


def piecewise_linear(*case: Any) -> float:
    (x, x64), (y, y64) = drawn(*case), drawn(*case)
    if not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
        x, y = x.contiguous(), y.contiguous()  # the operator is called with dense samples alone
    found, mask = native.piecewise_linear(x, 0.2, -0.5, 1.0)
    expected, _ = reference.piecewise_linear(x64, 0.2, -0.5, 1.0)
    inside = (x64 > -0.5) & (x64 < 1.0)
    masked = native.apply_mask(y, mask, 0.2, found.stride())
    native.piecewise_linear_(x, 0.2, -0.5, 1.0)
    return max(error(found, expected), error(masked, torch.where(inside, y64, 0.2 * y64)), error(x, expected))


def clipping_of_weights(*case: Any) -> float:
    pairs = [drawn(*case), drawn(*case)]
    native.clip_weights_([x for x, _ in pairs], 0.5)
    return max(error(x, x64.clamp(-0.5, 0.5)) for x, x64 in pairs)


def nonfinite(*case: Any) -> float:
    (x, _), (y, _) = drawn(*case), drawn(*case)
    wrong = native.nonfinite([x, y]).item()
    y[(-1,) * y.dim()] = torch.inf
    return max(wrong, 1 - native.nonfinite([x, y]).item())


def rmsprop(*case: Any) -> float:
    (x, x64), (y, y64), (z, z64) = drawn(*case), drawn(*case), drawn(*case)
    z.abs_()
    z64.abs_()
    settings = 0.9, 1e-3, 0.1, False, 0.5, None, None
    rate = torch.tensor(0.125, dtype=torch.float64)  # exact in float32, too
    native.rmsprop_([x], [y], [z], rate.float(), *settings)
    reference.rmsprop_([x64], [y64], [z64], rate, *settings)
    return max(error(x, x64), error(z, z64))


OPERATORS: dict[str, Callable[..., float]] = {
    "interpolate": interpolation,
    "gradient_norm_penalty": norm_penalty,
    "gradient_norm_penalty_backward": norm_penalty_backward,
    "piecewise_linear": piecewise_linear,
    "clip_weights_": clipping_of_weights,
    "nonfinite": nonfinite,
    "rmsprop_": rmsprop,
}
WRITES = ("clip_weights_", "nonfinite", "rmsprop_")  # refused where the elements of a tensor share memory


def references(compare: Comparisons) -> None:
    """Every operator against its specification in float64."""

    def of_operator(name: str, dtype: torch.dtype, shape: tuple[int, ...], layout: str) -> dict[str, Any]:
        seed = new_seed()
        torch.manual_seed(seed)
        with poisoned_memory():
            return {"seed": seed, **check("error", OPERATORS[name](shape, dtype, layout), BOUND[dtype])}

    for case in itertools.product(OPERATORS, DTYPES, SHAPES, LAYOUTS):
        name, dtype, shape, layout = case
        if not (name in WRITES and layout == "expanded"):
            compare(f"{name} {str(dtype)[6:]} {shape} {layout}", partial(of_operator, *case))


def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Without random numbers."""
    return gradient_penalty(critic, real, fake, t=real.flatten(1).sum(1).sigmoid())


Workload = tuple[Callable[[], nn.Module], tuple[int, ...]]
MLP: Workload = (lambda: mlp(2, unless_rehearsed(128, 8), 3), (unless_rehearsed(64, 8), 2))
IMAGES: Workload = (
    (lambda: convolutional((3, 4, 4), 4, 1, 256), (2, 3, 32, 32))
    if REHEARSED
    else (lambda: convolutional((3, 64, 128), 4, 1, 8192), (16, 3, 32, 32))
)
adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9), fused=True, capturable=True)
sgd = partial(torch.optim.SGD, lr=1e-3, fused=True)
clipping = partial(optim.RMSprop, lr=1e-3, clip=0.1)


def weights(critic: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in critic.parameters()])


def graph_error(workload: Workload, optimizer: Any, dtype: torch.dtype, settings: dict[str, Any]) -> dict[str, Any]:
    """Of the weights after many steps, on fresh samples each."""
    seed = new_seed()
    torch.manual_seed(seed)
    make, shape = workload
    critics = [make().to("cuda", dtype)]
    critics.append(copy.deepcopy(critics[0]))
    steps = [
        CriticStep(critic, optimizer(critic.parameters()), backend=backend, **{"penalty": penalty, **settings})
        for critic, backend in zip(critics, ("graph", "eager"), strict=True)
    ]
    for _ in range(STEPS):
        real, fake = (torch.randn(shape, dtype=dtype).cuda() for _ in range(2))
        for step in steps:
            step(real, fake)
    bound = 1e-9 if dtype == torch.float64 else 1e-4
    return {"seed": seed, **check("error", error(*map(weights, critics)), bound)}


def graphs(compare: Comparisons) -> None:
    """A captured step against an eager one. TF32 is off, so that both have the same precision in any algorithm."""
    torch.backends.cudnn.allow_tf32 = False
    cases: dict[str, tuple[Workload, Any, torch.dtype, dict[str, Any]]] = {
        "MLP, Adam, float64": (MLP, adam, torch.float64, {}),
        "MLP, Adam, float32": (MLP, adam, torch.float32, {}),
        "MLP, clipped RMSprop, float32": (MLP, clipping, torch.float32, {"penalty": None}),
        "images, SGD, float64": (IMAGES, sgd, torch.float64, {}),
        "images, SGD, float32": (IMAGES, sgd, torch.float32, {}),
    }
    for name, case in cases.items():
        compare(f"{name}, {STEPS} steps", partial(graph_error, *case))


def critic_step(critic: nn.Module) -> Callable[[], Any]:
    """A captured step on samples that stay."""
    real, fake = (torch.randn(MLP[1]).cuda() for _ in range(2))
    return partial(CriticStep(critic, adam(critic.parameters()), backend="graph"), real, fake)


class ReadsWhileCaptured(nn.Module):
    """Waits for the device during a capture, which CUDA refuses. The eager steps before it show nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = MLP[0]()

    def forward(self, x: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            x.sum().item()
        return self.critic(x)


def refused_capture(made_before: bool) -> None:
    """Another step's graph, made before or after a refused capture, is right after it."""
    step = critic_step(MLP[0]().cuda())
    for _ in range(WARM_UP if made_before else 0):
        step()
    critic = ReadsWhileCaptured().cuda()
    refused, stream = critic_step(critic), torch.cuda.current_stream()
    for _ in range(WARM_UP):
        before = weights(critic)
        try:
            refused()
        except RuntimeError as refusal:
            if "cannot be captured in a CUDA graph" not in str(refusal):
                raise
            break
    else:
        raise AssertionError(f"the capture was not refused in {WARM_UP} steps")
    assert torch.cuda.current_stream() == stream, "another stream is current"
    assert torch.equal(weights(critic), before), "the refused step changed weights"
    penalties = [step().penalty.item() for _ in range(WARM_UP + 2)]
    assert all(map(math.isfinite, penalties)), f"penalties are not finite: {penalties}"
    assert len(set(penalties)) == len(penalties), f"the interpolates are not drawn anew: {penalties}"


def refused_captures(compare: Comparisons) -> None:
    compare("a graph captured before the refusal is replayed after it", partial(refused_capture, True))
    compare("a graph is captured after the refusal", partial(refused_capture, False))


def memory_growth(history: bool) -> dict[str, Any]:
    """Bytes that replays add."""
    critic, encoder = MLP[0]().cuda(), nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).cuda()
    real, fake = (torch.randn(MLP[1]).cuda() for _ in range(2))
    step = CriticStep(critic, adam(critic.parameters()), backend="graph")

    def replay(times: int) -> tuple[int, int]:
        """Bytes of tensors, and bytes that PyTorch took from the device."""
        for _ in range(times):
            step(encoder(real) if history else real, fake)
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    before = replay(WARM_UP + 5)
    allocated, reserved = (now - then for now, then in zip(replay(REPLAYS), before, strict=True))
    return {"reserved": reserved, **check("bytes", allocated, 0)}


def memory(compare: Comparisons) -> None:
    compare(f"{REPLAYS} replays", partial(memory_growth, False))
    compare(f"{REPLAYS} replays with inputs that have a history", partial(memory_growth, True))


SCALE = 1024.0  # keeps gradients far from the smallest float16


def gradients(critic: nn.Module, loss: Callable[..., Tensor], real: Tensor, fake: Tensor) -> Tensor:
    critic.zero_grad()
    (SCALE * loss(critic, real, fake)).backward()
    return torch.cat([parameter.grad.double().cpu().flatten() / SCALE for parameter in critic.parameters()])


def textbook_loss(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    t = real.flatten(1).sum(1).sigmoid()
    return critic(fake).mean() - critic(real).mean() + reference.gradient_penalty(critic, real, fake, t=t)


def our_loss(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return CriticLoss(critic, penalty=penalty)(real, fake).loss


def parity(workload: Workload, dtype: torch.dtype) -> dict[str, Any]:
    """The error of our gradients under autocast is not far from the error of the textbook's under the same autocast."""
    seed = new_seed()
    torch.manual_seed(seed)
    make, shape = workload
    critic = make()
    real, fake = torch.randn(2, *shape)
    expected = gradients(copy.deepcopy(critic).double(), textbook_loss, real.double(), fake.double())
    critic = critic.cuda()

    def error_of(loss: Callable[..., Tensor]) -> float:
        def cast(*arguments: Any) -> Tensor:
            with torch.autocast("cuda", dtype):
                return loss(*arguments)

        return error(gradients(critic, cast, real.cuda(), fake.cuda()), expected)

    textbook = error_of(textbook_loss)
    return {
        "seed": seed,
        "textbook": textbook,
        **check("error", error_of(our_loss), 2 * textbook + 4 * torch.finfo(dtype).eps),
    }


def precision(compare: Comparisons) -> None:
    for (name, workload), dtype in itertools.product({"MLP": MLP, "images": IMAGES}.items(), DTYPES[:2]):
        compare(f"{name} {str(dtype)[6:]}", partial(parity, workload, dtype))


def training_in_a_group(backend: str) -> dict[str, Any]:
    """One process reduces with itself: its weights are those of a step without a group. The group ends in time."""
    seed = new_seed()
    torch.manual_seed(seed)
    critics = [MLP[0]().cuda()]
    critics.append(copy.deepcopy(critics[0]))
    batches = [torch.randn(2, *MLP[1]).cuda() for _ in range(2 * WARM_UP)]
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl", init_method=f"file://{folder}/meet", world_size=1, rank=0, timeout=timedelta(seconds=30)
        )
        try:
            for critic, group in zip(critics, (dist.group.WORLD, None), strict=True):
                optimizer = adam(critic.parameters())
                step = CriticStep(critic, optimizer, penalty=penalty, backend=backend, process_group=group)
                for real, fake in batches:
                    step(real, fake)
                step.close()
            torch.cuda.synchronize()
        finally:
            dist.destroy_process_group()
    return {"seed": seed, **check("error", error(*map(weights, critics)), 1e-5)}


def nccl(compare: Comparisons) -> None:
    for backend in ("eager", "graph"):
        compare(f"{backend} steps, then destroy_process_group", partial(training_in_a_group, backend))


CHECKS = {
    "references": references,
    "graphs": graphs,
    "refused-captures": refused_captures,
    "memory": memory,
    "precision": precision,
    "nccl": nccl,
}


def main(name: str) -> int:
    if REHEARSED:
        import computing  # noqa: F401 (PyTorch's operators compute under the stand-in for CUDA)
    compare = Comparisons()
    CHECKS[name](compare)
    print(f"{compare.failed} failed")
    return int(compare.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
