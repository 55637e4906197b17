"""Times functions in interleaved rounds, so that drift of the machine's speed affects all alike, and prints the short
comparison with the textbook of ``wgan-fast bench``.
"""

import argparse
import copy
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast import reference
from wgan_fast.losses import discriminator_loss
from wgan_fast.ops import clip_weights_, interpolate
from wgan_fast.optim import RMSprop
from wgan_fast.penalties import gradient_penalty, r1_r2_penalty
from wgan_fast.step import CriticStep

Function = Callable[[], object]
L2_BYTES = 2**28  # larger than the L2 cache of any GPU


def clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds; on a GPU, the device's own, read when all work launched so far is done."""
    return time.perf_counter if device.type != "cuda" else _device_clock(device)


@functools.cache
def _device_clock(device: torch.device) -> Callable[[], float]:
    """Measures the device's time between two readings, including its idle time between launches."""
    last, total = None, 0.0

    def read() -> float:
        nonlocal last, total
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        event.synchronize()
        if last is not None:  # elapsed_time is float32, precise only for short intervals
            total += last.elapsed_time(event) / 1e3
        last = event
        return total

    return read


def chill(device: torch.device) -> None:
    """Flushes the L2 cache of a GPU, so that kernels read from memory. Does nothing on a CPU."""
    if device.type == "cuda":
        _l2_filler(device).zero_()


@functools.cache
def _l2_filler(device: torch.device) -> Tensor:
    return torch.empty(L2_BYTES, dtype=torch.uint8, device=device)


def rounds_within(functions: Mapping[str, Function], device: torch.device, seconds: float) -> int:
    """The number of rounds that fit in ``seconds``, from 7 to 60. Each function must have run before."""
    now = clock(device)
    start = now()
    for function in functions.values():
        function()
    return min(60, max(7, int(seconds / (now() - start))))


def interleaved(functions: Mapping[str, Function], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """The seconds of each call, in rounds that call each function once, after a warm-up."""
    now = clock(device)
    for _ in range(3):
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds_within(functions, device, seconds)):
        for name, function in functions.items():
            chill(device)
            start = now()
            function()
            times[name].append(now() - start)
    return times


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    first, median, third = torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    return first.item(), median.item(), third.item()


def mlp(size: int, width: int, depth: int, inplace: bool = True) -> nn.Module:
    """A critic of ``depth`` hidden layers."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else size, width), nn.LeakyReLU(0.2, inplace=inplace)]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def convolutional(channels: tuple[int, ...], kernel: int, padding: int, features: int) -> nn.Module:
    """A critic of convolutions with stride 2."""
    layers: list[nn.Module] = []
    for i in range(len(channels) - 1):
        layers += [nn.Conv2d(channels[i], channels[i + 1], kernel, 2, padding), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1))


#: A function that makes a critic, and the shape of its batches.
Workload = tuple[Callable[[], nn.Module], tuple[int, ...]]
TOY: Workload = (lambda: mlp(2, 512, 3), (256, 2))
MNIST: Workload = (lambda: convolutional((1, 64, 128, 256), 5, 2, 4096), (50, 1, 28, 28))


def title(device: torch.device) -> str:
    """The heading of the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    head = f"wgan_fast against the textbook on {name}, PyTorch {torch.__version__}, float32, interleaved medians"
    how = "R1 + R2: its textbook has one forward, one backward and the fused Adam\n"
    how += "~: the quartiles overlap, so the difference is not significant; stop other programs meanwhile"
    return f"{head}\n{how}\n{'':<46}{'ours':>12}{'textbook':>12}{'times as fast':>16}"


def rows(device: torch.device, seconds: float) -> Iterator[str]:
    """Yields the line of each comparison once it is measured."""
    for name, make in _COMPARISONS.items():
        times = interleaved(make(device), device, seconds)
        (low, ours, high), (their_low, textbook, their_high) = (quartiles(times[who]) for who in ("ours", "textbook"))
        unclear = "~" if high >= their_low and their_high >= low else ""
        ratio = f"{unclear}{textbook / ours:.2f}"
        yield f"{name:<46}{ours * 1e3:>9.3f} ms{textbook * 1e3:>9.3f} ms{ratio:>16}"


def _interpolation(device: torch.device) -> dict[str, Function]:
    real, fake = torch.randn(2, 64, 3, 64, 64, device=device)
    t = torch.rand(64, device=device)
    return {"ours": lambda: interpolate(real, fake, t), "textbook": lambda: reference.interpolate(real, fake, t)}


def _penalties(workload: Workload, device: torch.device) -> dict[str, Function]:
    make, shape = workload
    critic, batches = make().to(device), torch.randn(2, *shape, device=device)
    return {
        "ours": functools.partial(_penalty, gradient_penalty, critic, batches),
        "textbook": functools.partial(_penalty, reference.gradient_penalty, critic, batches),
    }


def _penalty(penalty: Callable[..., Tensor], critic: nn.Module, batches: Tensor) -> None:
    critic.zero_grad()
    penalty(critic, *batches).backward()


def _clipping(device: torch.device) -> dict[str, Function]:
    weights = list(torch.randn(60, 20_000, device=device))

    def textbook() -> None:
        for weight in weights:
            weight.clamp_(-0.01, 0.01)

    return {"ours": lambda: clip_weights_(weights), "textbook": textbook}


def _rmsprop(device: torch.device) -> dict[str, Function]:
    ours, theirs = (mlp(784, 1024, 3).to(device) for _ in range(2))
    for parameter in (*ours.parameters(), *theirs.parameters()):
        parameter.grad = torch.randn_like(parameter)
    fused = RMSprop(ours.parameters(), clip=0.01)
    foreach = torch.optim.RMSprop(theirs.parameters(), lr=5e-5, foreach=True)

    def textbook() -> None:
        foreach.step()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.clamp_(-0.01, 0.01)

    return {"ours": fused.step, "textbook": textbook}


def _updates(workload: Workload, device: torch.device) -> dict[str, Function]:
    make, shape = workload
    ours, batches = make().to(device), torch.randn(2, *shape, device=device)
    theirs = copy.deepcopy(ours)

    def adam(critic: nn.Module, **options: Any) -> torch.optim.Adam:
        return torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.9), **options)

    step = CriticStep(ours, adam(ours, fused=True, capturable=True) if device.type == "cuda" else adam(ours))
    return {
        "ours": lambda: step(*batches),
        "textbook": functools.partial(reference.critic_step, theirs, adam(theirs), *batches),
    }


def zero_centred_gradients(critic: nn.Module, real: Tensor, fake: Tensor, *, at_fake: bool) -> None:
    """The strongest eager form of R1, or of R1 + R2, with the non-saturating loss and gamma 10: each batch is scored
    once, its penalty uses the graph of the scores, and one backward differentiates all.
    """
    scores, penalties = [], []
    for samples, penalised in ((real, True), (fake, at_fake)):
        points = samples.detach().requires_grad_(penalised)
        scores.append(critic(points))
        if penalised:
            (gradient,) = torch.autograd.grad(scores[-1].sum(), points, create_graph=True)
            penalties.append(5 * gradient.flatten(1).square().sum(1).mean())
    loss = F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()
    torch.stack([loss, *penalties]).sum().backward()


def _zero_centred_updates(workload: Workload, device: torch.device) -> dict[str, Function]:
    make, shape = workload
    ours, (real, fake) = make().to(device), torch.randn(2, *shape, device=device)
    theirs = copy.deepcopy(ours)
    optimizer, adam = (
        torch.optim.Adam(critic.parameters(), fused=True, capturable=device.type == "cuda") for critic in (ours, theirs)
    )
    step = CriticStep(ours, optimizer, penalty=r1_r2_penalty, loss=discriminator_loss)

    def one_forward() -> None:
        adam.zero_grad()
        zero_centred_gradients(theirs, real, fake, at_fake=True)
        adam.step()

    return {"ours": lambda: step(real, fake), "textbook": one_forward}


_COMPARISONS: dict[str, Callable[[torch.device], dict[str, Function]]] = {
    "interpolate, 64 x 3 x 64 x 64": _interpolation,
    "clip_weights_, 60 x 20,000": _clipping,
    "RMSprop and clipping, MLP 784-1024x3": _rmsprop,
    "penalty and its backward, MLP 2-512x3": functools.partial(_penalties, TOY),
    "penalty and its backward, MNIST-size": functools.partial(_penalties, MNIST),
    "critic update, MLP 2-512x3": functools.partial(_updates, TOY),
    "critic update, MNIST-size": functools.partial(_updates, MNIST),
    "update with R1 + R2, MLP 2-512x3": functools.partial(_zero_centred_updates, TOY),
    "update with R1 + R2, MNIST-size": functools.partial(_zero_centred_updates, MNIST),
}


def main(arguments: Sequence[str]) -> int:
    """``wgan-fast bench``: prints the comparisons. Needs only torch and numpy."""
    parser = argparse.ArgumentParser(
        "wgan-fast bench",
        description="Time the library and the textbook on this machine, interleaved, and print the medians.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--seconds", default=3.0, type=float, help="for each comparison, after its warm-up")
    options = parser.parse_args(arguments)
    if not 0.1 <= options.seconds < 1e6:
        parser.error(f"--seconds: expected a number of at least 0.1, got {options.seconds}")
    try:
        device = torch.device(options.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        reason = str(error).splitlines()[0]
        parser.error(f"--device: expected cpu, cuda or cuda:N, got {options.device!r}: {reason}")
    print(title(device))
    for row in rows(device, options.seconds):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
