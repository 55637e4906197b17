"""Steps under the stand-in: what they launch, what a capture may contain, and that a refused capture changes nothing.

TestPlantedFaults plants some of the faults that these tests are for. Others were planted by hand, and each made a test
fail. In the operators, which takes a build: no DeviceGuard in interpolate, clip_weights_, rmsprop_ or
gradient_norm_penalty (test_device_guards); the legacy stream in place of the current one (test_capture_and_replay). In
_step/: a capture in mode "global"; no release of the pool, gradients that stay, or the capture's stream that stays
current after a refused capture; no wait for a stream before or after the warm-up; `.grad` not set by a replay;
statistics that are not copied; a pool for each graph, a stream for each warm-up, streams that are not passed on,
workspaces that nothing holds; a debug mode that stays or is never set; no comparison of addresses, or without a setting
of PyTorch; an optimizer's state made in a capture.
"""

import ctypes
import gc
import inspect
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in import Entry, library, logged, needed
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wgan_fast import CriticStep, GeneratorStep, clip_weights_, interpolate, optim, r1_penalty
from wgan_fast._library import extension  # noqa: F401 (registers the operators)
from wgan_fast._step import capture, optimization
from wgan_fast._step.graph import GraphRunner
from wgan_fast.bench import mlp
from wgan_fast.losses import discriminator_loss, non_saturating_generator_loss

pytestmark = needed
native = torch.ops.wgan_fast
Step = Callable[[], Any]
WARM_UP = GraphRunner.WARM_UP
BATCH, LATENT = 16, 3

adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9), fused=True, capturable=True)
# With a bound of 0.01 the scores hardly differ, and rows are probed in float64, which the stand-in does not compute.
clipping = partial(optim.RMSprop, lr=5e-5, clip=0.5)


def small(inputs: int = 2, outputs: int = 1) -> nn.Sequential:
    layers = nn.Linear(inputs, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, outputs)
    return nn.Sequential(*layers).cuda()


def samples(count: int = BATCH) -> tuple[Tensor, Tensor]:
    real, fake = torch.randn(2, count, 2)
    return real.cuda(), fake.cuda()


def latent() -> Tensor:
    return torch.randn(BATCH, LATENT, device="cuda")


def critic_step(backend: str = "graph", critic: nn.Module | None = None, optimizer: Any = adam, **other: Any) -> Step:
    critic = small() if critic is None else critic
    return partial(CriticStep(critic, optimizer(critic.parameters()), backend=backend, **other), *samples())


def critic_step_with_fakes(backend: str = "graph") -> Step:
    critic, generator = small(), small(LATENT, 2)
    step = CriticStep(critic, adam(critic.parameters()), backend=backend)
    return partial(step, samples()[0], lambda: generator(latent()))


def generator_step(backend: str = "graph", **settings: Any) -> Step:
    generator = small(LATENT, 2)
    return partial(GeneratorStep(generator, small(), adam(generator.parameters()), backend=backend, **settings), latent)


def toy_step(backend: str) -> Step:
    critic = mlp(2, 512, 3).cuda()
    real, fake = torch.randn(2, 256, 2)
    return partial(CriticStep(critic, adam(critic.parameters()), backend=backend), real.cuda(), fake.cuda())


#: The steps of docs/step.md, and the launches of one: kernels, and products of cuBLAS.
STEPS: dict[str, tuple[Callable[[str], Step], int]] = {
    "toy": (toy_step, 78),
    "WGAN-GP": (critic_step, 64),
    "fakes of a function": (critic_step_with_fakes, 70),
    "clipping": (partial(critic_step, optimizer=clipping, penalty=None), 34),
    "clipping after Adam": (partial(critic_step, penalty=None, clip=0.5), 35),
    "R1": (partial(critic_step, penalty=lambda critic, real, fake, *args: r1_penalty(critic, real, *args)), 62),
    "standard GAN": (partial(critic_step, penalty=None, loss=discriminator_loss), 42),
    "generator": (generator_step, 38),
    "generator of a standard GAN": (partial(generator_step, loss=non_saturating_generator_loss), 40),
}
every_step = pytest.mark.parametrize("name", STEPS)


def repeated(step: Step, times: int) -> Step:
    for _ in range(times):
        step()
    return step


def launches(entries: list[Entry]) -> int:
    return sum(entry.kind in ("kernel", "product") for entry in entries)


def kinds(entries: list[Entry]) -> set[str]:
    return {entry.kind for entry in entries}


@every_step
def test_launches(name: str) -> None:
    """Of the fifth step, as the first, second and fourth ask whether the rows of a batch are independent."""
    make, expected = STEPS[name]
    step = repeated(make("eager"), 4)
    with logged() as entries:
        step()
    assert launches(entries) == expected
    assert "sync" not in kinds(entries), "the host waited for the device"


def test_traced_kernels_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the traced graph of PyTorch's operations in the place of compiled kernels, which the stand-in cannot run."""
    traces = []
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traces.append(traced) or traced)
    step = critic_step("compile")
    with logged() as entries:
        repeated(step, 2 + WARM_UP)
    assert "graph" not in kinds(entries)
    assert traces and not any("foreach" in trace.code for trace in traces)
    repeated(step, 1)
    with logged() as entries:
        step()
    assert "graph" in kinds(entries) and launches(entries) < 10
    not_capturable = partial(torch.optim.Adam, lr=1e-4, fused=True)
    with logged() as entries:
        step = repeated(critic_step("compile", optimizer=not_capturable), 2 + WARM_UP + 2)
    assert "capturable=True" in step.func.reason
    assert "graph" not in kinds(entries)


@every_step
def test_capture_and_replay(name: str) -> None:
    """The graph holds what an eager step launches, all of it; a replay is one launch."""
    make, expected = STEPS[name]
    step = repeated(make("graph"), WARM_UP + 1)  # cuBLAS's workspaces are there now
    step.func.close()
    repeated(step, WARM_UP)
    stream = torch.cuda.current_stream()
    with logged() as entries:
        step()
    captured = [entry for entry in entries if entry.captured]
    assert launches(captured) == expected
    assert len({entry.stream for entry in captured}) == 1 and "invalidated" not in kinds(entries)
    assert torch.cuda.current_stream() == stream
    with logged() as entries:
        step()
    assert [entry.kind for entry in entries].count("graph") == 1
    assert launches(entries) <= 4  # the seeds and offsets of the random numbers
    assert "sync" not in kinds(entries) and {entry.stream for entry in entries} == {0}


@pytest.mark.parametrize("name", ["WGAN-GP", "fakes of a function", "clipping", "generator"])
def test_graph_and_eager_step_agree(name: str) -> None:
    outputs: list[list[Any]] = []
    for backend in ("eager", "graph"):
        torch.manual_seed(1)
        step = STEPS[name][0](backend)
        outputs.append([step() for _ in range(WARM_UP + 4)])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_warm_up_waits_for_the_current_stream_and_is_waited_for() -> None:
    step = repeated(critic_step(), 2)
    with logged() as entries:
        step()
    events = [(entry.name, entry.stream == 0) for entry in entries if entry.kind in ("event", "kernel")]
    assert events[:2] == [("record", True), ("wait", False)]
    waits = [i for i, event in enumerate(events) if event == ("wait", True)]
    assert len(waits) == 1 and not any(name != "record" for name, current in events[waits[0] + 1 :] if not current)


def test_all_warm_ups_are_on_one_stream() -> None:
    """cuBLAS has workspaces for each stream."""
    with logged() as entries:
        for step in (critic_step(), generator_step()):
            repeated(step, WARM_UP)
    assert len({entry.stream for entry in entries if entry.kind == "product"}) == 1


def test_warm_ups_on_another_stream_have_another_side_stream() -> None:
    """Memory that one caller frees is not used again while another one's stream is waited for."""
    step, streams = critic_step(), []
    for current in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(current), logged() as entries:
            step.func.close()
            step()
        streams.append({entry.stream for entry in entries if entry.kind == "product"})
    assert len(streams[0]) == len(streams[1]) == 1 and streams[0] != streams[1]


def test_updates_skipped_at_first_do_not_prevent_a_capture() -> None:
    """SGD has no momentum before an update, and the first ones in float16 are often skipped."""
    factor = torch.tensor(torch.inf).cuda()
    momentum = partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True)
    step = critic_step(optimizer=momentum, penalty=None, loss=lambda real, fake: factor * (fake.mean() - real.mean()))
    repeated(step, WARM_UP + 1)
    factor.fill_(1.0)
    repeated(step, 3)  # the first update, one with momentum, the capture
    with logged() as entries:
        step()
    assert "graph" in kinds(entries) and step.func.skipped == WARM_UP + 1


WITHOUT_PRODUCTS = """
import computing
import torch
from test_steps import WARM_UP, critic_step, nn, repeated

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, device="cuda"))

    def forward(self, x):
        return (x * self.weight).tanh().sum(1)

repeated(critic_step(critic=Critic()), WARM_UP + 2)
"""


def test_critic_that_never_used_cublas() -> None:
    """As one of convolutions alone. cuBLAS cannot make a handle under capture, and this process has none."""
    run = subprocess.run([sys.executable, "-c", WITHOUT_PRODUCTS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class Multiplied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.critic = small()

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return factor * self.critic(x)


def test_number_in_a_tensor_of_the_host_is_not_frozen() -> None:
    """A kernel gets it as an argument, which a graph records."""
    outputs = []
    for backend in ("eager", "graph"):
        torch.manual_seed(1)
        step = critic_step(backend, Multiplied(), penalty=None)
        outputs.append([step(torch.tensor(factor)) for factor in (*[1.0] * (WARM_UP + 2), 3.0, 1.0)])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_hooks_that_are_added_after_a_capture_are_called() -> None:
    critic = small()
    optimizer = adam(critic.parameters())
    step = critic_step(critic=critic, optimizer=lambda _: optimizer)
    for register in (
        critic.register_forward_hook,
        critic[0].weight.register_hook,
        optimizer.register_step_pre_hook,
    ):
        repeated(step, WARM_UP + 1)
        calls: list[Any] = []
        register(lambda *_, calls=calls: calls.append(None))
        step()
        assert calls, register


def test_settings_of_a_scaler_are_captured_anew() -> None:
    scaler = torch.amp.GradScaler()
    step = repeated(critic_step(scaler=scaler, penalty=None), WARM_UP + 1)
    scaler.set_growth_interval(7)
    step()
    assert len(step.func._run._kept) == 2


def test_interrupted_capture_leaves_no_gradients() -> None:
    """Ctrl-C during the update: the memory of the gradients was never written."""

    def interrupts(*_: Any) -> None:
        if torch.cuda.is_current_stream_capturing():
            raise KeyboardInterrupt

    critic = small()
    optimizer = adam(critic.parameters())
    optimizer.register_step_pre_hook(interrupts)
    step = repeated(critic_step(critic=critic, optimizer=lambda _: optimizer), WARM_UP)
    with pytest.raises(KeyboardInterrupt):
        step()
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_gradients_are_those_of_the_last_graph() -> None:
    critic = small()
    step = CriticStep(critic, adam(critic.parameters()), backend="graph")
    batches = samples(BATCH), samples(BATCH + 1)
    for batch in batches:
        repeated(partial(step, *batch), WARM_UP + 1)
    pointers = []
    for batch in (*batches, *batches):
        step(*batch)
        pointers.append([parameter.grad.data_ptr() for parameter in critic.parameters()])
    assert pointers[0] == pointers[2] != pointers[1] == pointers[3]


def test_other_threads_may_allocate_during_a_capture() -> None:
    """A loader that pins memory, say."""

    def allocate() -> None:
        memory = ctypes.c_void_p()
        assert library.cudaHostAlloc(ctypes.byref(memory), ctypes.c_size_t(256), 0) == 0
        assert library.cudaFreeHost(memory) == 0

    def in_a_thread(x: Tensor) -> None:
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()

    step = repeated(critic_step(critic=During(in_a_thread)), WARM_UP)
    with logged() as entries:
        step()
    assert "graph" in kinds(entries)


@pytest.mark.parametrize("name", ["WGAN-GP", "generator"])
def test_memory_stays_flat(name: str) -> None:
    step = repeated(STEPS[name][0]("graph"), WARM_UP + 5)
    gc.collect()
    before = torch.cuda.memory_allocated(), library.cuda_stand_in_bytes(), library.cuda_stand_in_allocations()
    repeated(step, 1_000)
    gc.collect()
    after = torch.cuda.memory_allocated(), library.cuda_stand_in_bytes(), library.cuda_stand_in_allocations()
    assert after == before


def mebibytes() -> float:
    gc.collect()
    torch.cuda.empty_cache()
    return library.cuda_stand_in_bytes() / 2**20


def test_graphs_of_a_step_share_memory_and_workspaces() -> None:
    """cuBLAS has 64 MiB of workspaces for each stream, forward and backward."""
    step, sizes = critic_step(), []
    for count in range(BATCH, BATCH + 4):
        repeated(partial(step.func, *samples(count)), WARM_UP + 2)
        sizes.append(mebibytes())
    assert sizes[3] - sizes[0] < 1


@pytest.mark.parametrize("closes", [True, False])
def test_a_closed_or_dropped_step_gives_its_memory_back(closes: bool) -> None:
    repeated(critic_step(), WARM_UP + 1)
    before = mebibytes()
    critic = small()
    step = repeated(critic_step(critic=critic), WARM_UP + 1)
    for parameter in critic.parameters():
        parameter.grad = None
    if closes:
        step.func.close()
        assert mebibytes() - before <= 2, "more than the block with the norms of the last penalty"
        repeated(step, WARM_UP + 2)
    del step, critic, parameter
    assert mebibytes() - before < 1


def test_workspaces_outlast_a_compiler_that_clears_them() -> None:
    """As torch.compile(mode="reduce-overhead") does; a graph still uses them."""
    capture._free_streams(torch.device("cuda", 0)).clear()  # PyTorch's streams come round; others' workspaces are there
    torch._C._cuda_clearCublasWorkspaces()
    for _ in range(2):  # the second step has the stream of the first, which is gone
        gc.collect()
        step = repeated(critic_step(), WARM_UP + 1)
    workspaces = step.func._run._pool._taken.workspaces
    sizes = []
    for _ in range(2):
        sizes.append(sum(segment["total_size"] for segment in torch.cuda.memory_snapshot(workspaces.pool())))
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
    assert sizes[0] == sizes[1] > 2**26


def memory_growth_with_history() -> int:
    """Bytes that 50 replays add, with inputs that have a graph."""
    critic, encoder = small(), small(2, 2)  # a layer alone would save nothing but its input, which is always the same
    step = CriticStep(critic, clipping(critic.parameters()), backend="graph")
    real, fake = samples()
    sizes = []
    for _ in range(3):
        repeated(lambda: step(encoder(real), fake), 50)
        gc.collect()
        sizes.append(torch.cuda.memory_allocated())
    return sizes[2] - sizes[1]


def test_history_of_inputs_is_not_kept() -> None:
    assert memory_growth_with_history() == 0


def test_skipped_updates_are_asked_for_every_16_steps() -> None:
    step = repeated(critic_step(), WARM_UP + 1)
    with logged() as entries:
        repeated(step, 32)
    assert [entry.name for entry in entries if entry.kind == "copy"].count("device to host") == 2


class During(nn.Module):
    """A critic that does something during a capture; the warm-up does not show it."""

    def __init__(self, act: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.critic, self.act = small(), act

    def forward(self, x: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            self.act(x)
        return self.critic(x)


def reads_a_value(x: Tensor) -> None:
    x.sum().item()


def waits(x: Tensor) -> None:
    torch.cuda.synchronize()


def allocates(x: Tensor) -> None:
    """As a library would that does not use PyTorch's allocator."""
    assert library.cudaMalloc(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(256)) == 900


def joins_the_legacy_stream(x: Tensor) -> None:
    torch.cuda.default_stream().wait_stream(torch.cuda.current_stream())


def leaves_work_unjoined(x: Tensor) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.zeros(1, device="cuda")


def depends_on_work_outside(x: Tensor) -> None:
    torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())


def raises(x: Tensor) -> None:
    raise ValueError("not in a capture")


REFUSED = [
    reads_a_value,
    waits,
    allocates,
    joins_the_legacy_stream,
    leaves_work_unjoined,
    depends_on_work_outside,
    raises,
]


@pytest.mark.parametrize("act", REFUSED)
def test_refused_capture_changes_nothing(act: Callable[[Tensor], Any]) -> None:
    working = repeated(critic_step(), WARM_UP + 1)
    critic = During(act)
    refused = repeated(critic_step(critic=critic), WARM_UP)
    weights = [parameter.clone() for parameter in critic.parameters()]
    stream, random_state = torch.cuda.current_stream(), torch.cuda.get_rng_state()
    for _ in range(2):  # nor does it at a second attempt
        with pytest.raises(RuntimeError, match="^the step cannot be captured in a CUDA graph, take backend='eager'"):
            refused()
        assert torch.cuda.current_stream() == stream
        assert library.cuda_stand_in_captures() == 0
        assert torch.equal(torch.cuda.get_rng_state(), random_state)
        assert all(map(torch.equal, critic.parameters(), weights))
        assert all(parameter.grad is None for parameter in critic.parameters()), "memory that was never written"
    library.cudaGetLastError()  # of the calls above
    for step in (working, critic_step()):  # one that was captured before, and one that is captured now
        penalties = [float(step().penalty) for _ in range(WARM_UP + 2)]
        assert len(set(penalties)) == len(penalties), "the interpolates are not drawn anew"


@pytest.mark.parametrize("act", [reads_a_value, raises])
def test_refused_captures_give_their_memory_back(act: Callable[[Tensor], Any]) -> None:
    refused = repeated(critic_step(critic=During(act)), WARM_UP)
    sizes = []
    for _ in range(4):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            refused()
        gc.collect()
        torch.cuda.empty_cache()
        sizes.append(library.cuda_stand_in_bytes())
    library.cudaGetLastError()
    assert sizes[3] == sizes[1]


@pytest.mark.filterwarnings("ignore:gemm_and_bias error:UserWarning")  # of a product after the refused call
@pytest.mark.parametrize("act", REFUSED)
def test_refused_capture_goes_on_eagerly(act: Callable[[Tensor], Any]) -> None:
    """With the numbers of a step that was eager all the time."""
    outputs = []
    for backend in ("eager", "auto"):
        torch.manual_seed(1)
        step = repeated(critic_step(backend, During(act)), WARM_UP)
        if backend == "auto":
            with pytest.warns(RuntimeWarning, match="(?s)cannot be captured .* goes on eagerly"):
                outputs.append([step()])
        else:
            outputs.append([step()])
        outputs[-1] += [step() for _ in range(3)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


class Asks(nn.Module):
    """A critic that reads a value on the host, in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = small()

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x if x.sum().item() < 1e9 else -x)


def test_synchronisation_is_found_in_the_warm_up() -> None:
    critic = Asks()
    step = repeated(critic_step(critic=critic), WARM_UP)
    assert torch.cuda.get_sync_debug_mode() == 0
    weights = [parameter.detach().clone() for parameter in critic.parameters()]
    for _ in range(2):
        with logged() as entries, pytest.raises(RuntimeError, match=r"test_steps.py:\d+: return .*x.sum\(\).item\(\)"):
            step()
        assert not any(entry.captured for entry in entries), "a capture was tried"
    assert all(map(torch.equal, critic.parameters(), weights))
    step = repeated(critic_step("auto", critic), WARM_UP)
    with pytest.warns(RuntimeWarning, match=r"x.sum\(\).item\(\).* goes on eagerly"):
        step()
    assert step.func.backend == "eager" and "the host waits for the device at" in step.func.reason


def test_other_warnings_of_a_warm_up_are_shown() -> None:
    def warns(x: Tensor) -> Tensor:
        warnings.warn("of the critic", stacklevel=1)
        return critic(x)

    critic = small()
    step = partial(CriticStep(warns, adam(critic.parameters()), backend="graph", penalty=None), *samples())
    with pytest.warns(UserWarning, match="of the critic"):
        step()


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("name", ["WGAN-GP", "clipping", "generator"])
def test_step_inside_a_capture_of_the_caller(name: str, backend: str) -> None:
    outputs: list[list[Any]] = []
    for captured in (False, True):
        torch.manual_seed(1)
        step = repeated(STEPS[name][0](backend), 2)
        with torch.no_grad():
            if captured:
                whole = torch.cuda.CUDAGraph()
                with torch.cuda.graph(whole):
                    held = step()
            outputs.append([])
            for _ in range(4):
                if captured:
                    whole.replay()
                outputs[-1].append(tree_map(torch.clone, held) if captured else step())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def refused_inside_a_capture(step: Step, match: str) -> None:
    with (
        pytest.raises(RuntimeError, match=match),
        capture.capturing(torch.cuda.Stream(), torch.cuda.graph_pool_handle(), []),
    ):
        step()


def test_step_refused_inside_a_capture_of_the_caller() -> None:
    """Where a replay would do something else than the step."""
    repeated(critic_step(), 1)  # a handle of cuBLAS
    refused_inside_a_capture(critic_step("eager", optimizer=partial(adam, capturable=False)), "without capturable=True")
    critic = small()
    optimizer = adam(critic.parameters())
    step = critic_step("eager", critic, lambda _: optimizer)
    refused_inside_a_capture(step, "no state yet.*call the step at least once before the capture")
    assert not any(optimizer.state.values())
    repeated(step, 2)
    scaler = torch.amp.GradScaler()
    refused_inside_a_capture(critic_step("eager", critic, lambda _: optimizer, scaler=scaler), "no state yet")
    assert scaler._scale is None
    momentum = partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True)
    refused_inside_a_capture(critic_step("eager", optimizer=momentum), "no state yet")


PROCESS = """
import sys
import torch, computing
from torch import distributed
from test_steps import CriticStep, adam, small

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for backend in ("eager", "graph"):
    torch.manual_seed(1)
    critic = small()
    step = CriticStep(critic, adam(critic.parameters()), backend=backend, process_group=distributed.group.WORLD)
    torch.manual_seed(2 + rank)
    for i in range(15):
        real, fake = torch.randn(2, 5 if rank == 0 and i % 3 == 2 else 8, 2).cuda()
        wasserstein = step(real, fake).wasserstein.item()
    weights = (weight for parameter in critic.parameters() for weight in parameter.flatten().tolist())
    print(*(f"{number:.6f}" for number in (wasserstein, *weights)))
distributed.destroy_process_group()
"""


def test_processes_may_capture_at_different_steps(tmp_path: Path) -> None:
    """The last batch of an epoch is smaller in one process: it warms up and captures while the other replays."""
    arguments = [sys.executable, "-c", PROCESS]
    processes = [
        subprocess.Popen([*arguments, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        lines = [line for process in processes for line in process.communicate(timeout=200)[0].splitlines()]
    finally:
        for process in processes:
            process.kill()
    assert len(lines) == 4 and len(set(lines)) == 1


def test_settings_that_are_captured_anew() -> None:
    """Those of PyTorch that choose kernels."""
    step = repeated(critic_step(), WARM_UP + 1)

    def captures() -> int:
        repeated(step, WARM_UP + 1)
        with logged() as entries:
            step()
        assert "graph" in kinds(entries)
        return len(step.func._run._kept)

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = [
        (partial(setattr, cudnn, "benchmark"), True, False),
        (partial(setattr, cudnn, "deterministic"), True, False),
        (partial(setattr, matmul, "fp32_precision"), "tf32", "none"),
        (partial(setattr, matmul, "allow_bf16_reduced_precision_reduction"), False, True),
        (torch.use_deterministic_algorithms, True, False),
    ]
    assert captures() == 1
    for number, (choose, value, before) in enumerate(settings, start=2):
        choose(value)
        try:
            assert captures() == number
        finally:
            choose(before)


def on_device_1() -> None:
    """Every operator, on a device that is not the current one."""
    x, y, t = torch.randn(5, 40).cuda(1), torch.randn(5, 40).cuda(1), torch.rand(5).cuda(1)
    interpolate(x, y, t)
    rest = 10.0, 1.0, 2.0, False
    _, norms = native.gradient_norm_penalty(x, *rest)
    native.gradient_norm_penalty_backward(t[:1].view(()), x, norms, *rest)
    _, mask = native.piecewise_linear(x, 0.2, 0.0, torch.inf)
    native.apply_mask(x, mask, 0.2, x.stride())
    native.piecewise_linear_(x, 0.2, 0.0, torch.inf)
    clip_weights_([x, y.t()], 0.1)
    native.nonfinite([x, y])
    native.rmsprop_([x], [y], [y.clone()], torch.tensor(0.1), 0.9, 1e-8, 0.0, False, 0.5, None, None)
    parameter = nn.Parameter(x.clone())
    parameter.grad = y
    optim.RMSprop([parameter], clip=0.1).step()


def test_device_guards() -> None:
    with logged() as entries:
        on_device_1()
    assert {entry.device for entry in entries} == {1}
    assert torch.cuda.current_device() == 0


def test_clips_on_each_device() -> None:
    weights = [torch.randn(3, 4).cuda(i % 2) for i in range(4)]
    with logged() as entries:
        clip_weights_(weights, 0.1)
    assert [entry.device for entry in entries if entry.kind == "kernel"] == [0, 1]
    assert all(weight.abs().max() <= 0.1 for weight in weights)


class TestPlantedFaults:
    """Faults in the source of a module, and that a test of this file would find them."""

    @staticmethod
    def plant(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, text: str, fault: str) -> None:
        source = inspect.cleandoc("\n" + inspect.getsource(getattr(owner, method)))
        assert source.count(text) == 1
        module = inspect.getmodule(owner)
        scope: dict[str, Any] = {}
        exec(source.replace(text, fault), vars(module), scope)
        monkeypatch.setattr(owner, method, scope[method])

    def test_missing_detach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plant(monkeypatch, GraphRunner, "__call__", "copy_(tensor.detach())", "copy_(tensor)")
        assert memory_growth_with_history() > 0

    def test_synchronisation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fault = "statistics[0].item(); self.skipped.count("
        self.plant(monkeypatch, optimization.Optimization, "update", "self.skipped.count(", fault)
        with pytest.raises(AssertionError, match="the host waited"):
            test_launches("WGAN-GP")
        with pytest.raises(RuntimeError, match="cannot be captured"):
            repeated(critic_step(), WARM_UP + 1)

    def test_capture_that_is_not_cleaned_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        end, left = capture._end_capture, []
        monkeypatch.setattr(capture, "_end_capture", lambda *arguments: left.append(arguments))
        with pytest.raises(RuntimeError):
            test_refused_capture_changes_nothing(reads_a_value)
        for arguments in left:
            end(*arguments)
        library.cudaGetLastError()
        repeated(critic_step(), WARM_UP + 1)
