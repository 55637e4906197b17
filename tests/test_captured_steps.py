"""Captured steps without a GPU, a graph standing in for CUDA's: the numbers of eager steps, and when a capture is made
anew.
"""

import copy
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from critics import CRITICS
from updates import BATCH, Optimizer, adam, samples, sgd, updated
from wgan_fast import CriticStep, GeneratorStep, gradient_penalty, losses, optim
from wgan_fast._step import backends, capture, graph
from wgan_fast._step.graph import GraphRunner


class HostGraph(TorchDispatchMode):
    """Stands in for a CUDA graph where there is no GPU: what is captured is as if it had not happened, and a replay
    runs each operation again, with its results in the same memory.
    """

    captures = 0
    capturing = False

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def pool(self) -> None:
        return None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a captured step asks the device for a number"
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, out in self.operations:
                again = func(*args, **kwargs)
                for new, held in zip(tree_leaves(again), tree_leaves(out), strict=True):
                    if isinstance(held, Tensor) and new.data_ptr() != held.data_ptr():
                        held.copy_(new)


@pytest.fixture
def capture_on_the_host(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list; a test appends the modules, optimizers and tensors whose state a capture must not change."""
    untouched: list[Any] = []

    @contextmanager
    def captured(graph: HostGraph, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        kept = [(thing, copy.deepcopy(thing.state_dict())) for thing in untouched]
        state = torch.get_rng_state(), [(generator, generator.get_state()) for generator in graph.generators]
        HostGraph.capturing = True
        try:
            with graph:
                yield
        finally:
            HostGraph.capturing = False
        HostGraph.captures += 1
        with torch.no_grad():
            for thing, before in kept:
                _restore(thing, before)
        torch.set_rng_state(state[0])
        for generator, before in state[1]:
            generator.set_state(before)

    monkeypatch.setattr(HostGraph, "captures", 0)
    monkeypatch.setattr(backends, "obstacle_to_graph", lambda update: None)
    stream = capture.CaptureStream(SimpleNamespace(device=torch.device("cpu")), None)
    monkeypatch.setattr(capture, "_take_stream", lambda device: stream)
    monkeypatch.setattr(graph, "warm_up_stream", lambda current: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(losses, "is_recorded", lambda: HostGraph.capturing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", HostGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda device, pool: None, raising=False)
    monkeypatch.setattr(torch.cuda, "graph", captured)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(wait_stream=lambda other: None))
    return untouched


def _restore(thing: nn.Module | torch.optim.Optimizer, before: Any) -> None:
    """Restores in place, because load_state_dict would replace the captured tensors of an optimizer."""
    if isinstance(thing, nn.Module):
        thing.load_state_dict(before)
        return
    parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
    for i, parameter in enumerate(parameters):
        for name, value in thing.state[parameter].items():
            value.copy_(before["state"][i][name])


@pytest.mark.parametrize("make", [adam, partial(optim.RMSprop, lr=1e-3, clip=0.5)])
def test_captured_step(capture_on_the_host: list[Any], make: Optimizer) -> None:
    """Eager, captured and replayed steps equal the textbook's, with the same random numbers."""
    critic = CRITICS["dcgan"][0]().double()
    other = copy.deepcopy(critic)
    batches = [samples(CRITICS["dcgan"][1]) for _ in range(7)]
    optimizer, numbers = make(critic.parameters()), torch.Generator().manual_seed(3)
    capture_on_the_host += [critic, optimizer]
    step = CriticStep(critic, optimizer, penalty=partial(gradient_penalty, generator=numbers), backend="graph")
    actual = updated(critic, step, batches)
    numbers.manual_seed(3)
    expected = updated(
        other,
        CriticStep(other, make(other.parameters()), penalty=step._critic_loss.penalty, backend="eager"),
        batches,
    )
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert HostGraph.captures == 1


def test_captured_generator_step_draws_new_numbers(capture_on_the_host: list[Any]) -> None:
    generator, critic = nn.Linear(3, 12), CRITICS["mlp"][0]()
    other = copy.deepcopy(generator)
    optimizers = [sgd(network.parameters()) for network in (generator, other)]
    capture_on_the_host += [generator, optimizers[0]]
    steps = [
        GeneratorStep(network, critic, optimizer, backend=backend)
        for network, optimizer, backend in zip((generator, other), optimizers, ("graph", "eager"), strict=True)
    ]
    latent = partial(torch.randn, BATCH, 3)
    losses = []
    for step in steps:
        torch.manual_seed(1)
        losses.append([step(latent) for _ in range(7)])
    torch.testing.assert_close(losses[0], losses[1])
    assert len(set(map(float, losses[0]))) == 7


def test_what_is_captured_anew(capture_on_the_host: list[Any]) -> None:
    critic, other = CRITICS["mlp"][0](), None
    other = copy.deepcopy(critic)
    optimizers = [sgd(c.parameters()) for c in (critic, other)]
    capture_on_the_host += [critic, optimizers[0]]
    steps = [
        CriticStep(c, o, penalty=None, backend=backend)
        for c, o, backend in zip((critic, other), optimizers, ("graph", "eager"), strict=True)
    ]
    per_kind = GraphRunner.WARM_UP + 2

    def expect(captures: int, count: int = BATCH) -> None:
        for _ in range(per_kind):
            batch = samples((12,), count, torch.float32)
            for step in steps:
                step(*batch)
        assert HostGraph.captures == captures
        torch.testing.assert_close(list(critic.parameters()), list(other.parameters()))

    expect(1)
    expect(2, BATCH + 1)
    expect(2)
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] /= 2
    expect(3)
    for network in (critic, other):
        network[0].requires_grad_(False)
    expect(4)
    for network in (critic, other):
        network.eval()
    expect(5)
    with torch.autocast("cpu", torch.bfloat16):
        expect(6)
    for network in (critic, other):
        network[1] = nn.Tanh()
    expect(7)


def test_loaded_state_is_captured_anew(capture_on_the_host: list[Any]) -> None:
    """A graph holds addresses of tensors and the values of those on the CPU."""
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    optimizers = [optim.RMSprop(c.parameters(), lr=1e-3) for c in (critic, other)]
    capture_on_the_host += [critic, optimizers[0]]
    steps = [
        CriticStep(c, o, penalty=None, backend=backend)
        for c, o, backend in zip((critic, other), optimizers, ("graph", "eager"), strict=True)
    ]
    changes = [
        lambda: [optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict())) for optimizer in optimizers],
        lambda: [setattr(network[0].weight, "data", network[0].weight.data * 2) for network in (critic, other)],
    ]
    for captures, change in enumerate([lambda: None, *changes], start=1):
        change()
        for _ in range(GraphRunner.WARM_UP + 2):
            batch = samples((12,))
            for step in steps:
                step(*batch)
        assert HostGraph.captures == captures
        torch.testing.assert_close(list(critic.parameters()), list(other.parameters()), rtol=1e-12, atol=1e-12)
    rate = optimizers[0].param_groups[0]["lr"] = torch.tensor(1e-3)
    before = steps[0]._run._settings()
    assert steps[0]._run._settings() == before
    rate.mul_(0.5)
    assert steps[0]._run._settings() != before


FLOAT32_PRECISIONS = """
import torch
from torch import nn
from wgan_fast import CriticStep
from wgan_fast._critic.rows import rows_are_independent
from wgan_fast._torch import float32_precision

b = torch.backends
critic = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1))
real, fake = torch.randn(2, 6, 3, 8)
step = CriticStep(critic, torch.optim.Adam(critic.parameters()))
for setting, allows in (
    (b, "cpu cuda"),
    (b.cuda.matmul, "cuda"), (b.cudnn, "cuda"), (b.cudnn.conv, "cuda"), (b.cudnn.rnn, "cuda"),
    (b.mkldnn, "cpu"), (b.mkldnn.matmul, "cpu"), (b.mkldnn.conv, "cpu"), (b.mkldnn.rnn, "cpu"),
):
    before = setting.fp32_precision
    for precision in ("ieee", "tf32"):
        setting.fp32_precision = precision
        settings = step._frozen.settings()
        assert step(real, fake).loss.isfinite()
        assert rows_are_independent(critic, real, fake)
        for device in allows.split():
            assert precision in float32_precision(device), (setting, device)
    if "cpu" in allows:
        setting.fp32_precision = "ieee"
        assert step._frozen.settings() != settings  # another capture
    setting.fp32_precision = before
for precision in ("high", "highest"):
    torch.set_float32_matmul_precision(precision)
    assert ("tf32" in float32_precision("cuda")[:1]) == (precision == "high")
"""


def test_settings_of_float32_precision() -> None:
    """PyTorch's older settings cannot be read where the newer ones were used. The settings are the process's."""
    done = subprocess.run([sys.executable, "-c", FLOAT32_PRECISIONS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gradients_after_a_replay(capture_on_the_host: list[Any]) -> None:
    critic = CRITICS["mlp"][0]()
    optimizer = sgd(critic.parameters())
    capture_on_the_host += [critic, optimizer]
    step = CriticStep(critic, optimizer, penalty=None, backend="graph")
    for i in range(12):
        before = critic[0].weight.detach().clone()
        step(*samples((12,), BATCH + i % 2, torch.float32))
        torch.testing.assert_close(critic[0].weight.detach(), before - 1e-2 * critic[0].weight.grad)
        critic.zero_grad()


def test_python_of_a_replay(capture_on_the_host: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of Python functions beside the graph's own, for a critic of 28 parameters. Their number does not depend on
    the machine; it was 1,311 where each replay listed the tensors anew.
    """
    layers = [layer for _ in range(12) for layer in (nn.Linear(12, 12), nn.LeakyReLU(0.2))]
    critic = nn.Sequential(nn.Linear(12, 12), *layers, nn.Linear(12, 1))
    step = CriticStep(critic, adam(critic.parameters()), backend="graph")
    batch = samples((12,), dtype=torch.float32)
    for _ in range(GraphRunner.WARM_UP + 2):
        step(*batch)
    monkeypatch.setattr(HostGraph, "replay", lambda graph: None)
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        step(*batch)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 60, calls


def test_lightning_counts_replays(capture_on_the_host: list[Any]) -> None:
    lightning = pytest.importorskip("lightning.pytorch.core.optimizer")
    critic, counts = CRITICS["mlp"][0](), {"before": 0, "after": 0}
    optimizer = lightning.LightningOptimizer(adam(critic.parameters()))
    optimizer._strategy = SimpleNamespace(optimizer_step=lambda inner, closure, **_: inner.step(closure))
    for name in counts:
        setattr(optimizer, f"_on_{name}_step", partial(lambda name: counts.update({name: counts[name] + 1}), name))
    step = CriticStep(critic, optimizer, backend="graph")
    for _ in range(GraphRunner.WARM_UP + 4):
        step(*samples((12,), dtype=torch.float32))
    assert HostGraph.captures == 1
    assert counts == {"before": GraphRunner.WARM_UP + 4, "after": GraphRunner.WARM_UP + 4}


def test_no_garbage_collection_in_a_capture(capture_on_the_host: list[Any]) -> None:
    critic, seen = nn.Linear(12, 1), []

    def watched(x: Tensor) -> Tensor:
        if HostGraph.capturing:
            seen.append(gc.isenabled())
            assert len(seen) < 3, "the second capture fails here"
        return critic(x)

    step = CriticStep(watched, sgd(critic.parameters()), penalty=None, backend="graph")
    for _ in range(GraphRunner.WARM_UP + 1):
        step(*samples((12,), dtype=torch.float32))
    assert seen == [False, False] and gc.isenabled()
    step.close()
    for _ in range(GraphRunner.WARM_UP):
        step(*samples((12,), dtype=torch.float32))
    with pytest.raises(RuntimeError, match="cannot be captured"):
        step(*samples((12,), dtype=torch.float32))
    assert len(seen) == 3 and gc.isenabled()


class TestCompiledInAGraph:
    """What was traced takes the place of compiled code, which a CPU would compile for itself."""

    STEPS = backends._Compiled.UNCOMPILED_CALLS + GraphRunner.WARM_UP + 3

    @pytest.fixture
    def compilations(self, monkeypatch: pytest.MonkeyPatch, capture_on_the_host: list[Any]) -> list[Any]:
        """Of each kind of inputs that compiled code was called with, what torch.compile would specialise it to."""
        found: list[Any] = []

        def compiled(traced: Any, **_: Any) -> Any:
            known = set()

            def call(*tensors: Tensor) -> Any:
                kind = tuple((t.shape, t.stride(), t.requires_grad, t.is_inference()) for t in tensors)
                if kind not in known:
                    known.add(kind)
                    found.append((HostGraph.capturing, kind))
                return traced(*tensors)

            return call

        monkeypatch.setattr(torch, "compile", compiled)
        return found

    @pytest.fixture
    def make(self, capture_on_the_host: list[Any]) -> Callable[..., tuple[list[nn.Module], list[CriticStep]]]:
        """Makes two equal critics, and their steps: a compiled and an eager one."""

        def make(**settings: Any) -> tuple[list[nn.Module], list[CriticStep]]:
            critics = [CRITICS["mlp"][0]().double()]
            critics.append(copy.deepcopy(critics[0]))
            optimizers = [adam(critic.parameters()) for critic in critics]
            capture_on_the_host.extend([critics[0], optimizers[0]])
            steps = [
                CriticStep(critic, optimizer, backend=backend, **settings)
                for critic, optimizer, backend in zip(critics, optimizers, ("compile", "eager"), strict=True)
            ]
            return critics, steps

        return make

    @pytest.mark.parametrize("kind", ["dense", "history", "slice", "expanded", "inference", "function"])
    def test_equals_eager(self, compilations: list[Any], make: Any, kind: str) -> None:
        generator = nn.Linear(3, 12).double()
        kinds = {
            "dense": lambda: torch.randn(BATCH, 12).double(),
            "history": lambda: generator(torch.randn(BATCH, 3).double()),
            "slice": lambda: torch.randn(BATCH, 24).double()[:, ::2],
            "expanded": lambda: torch.randn(1, 12).double().expand(BATCH, 12),
            "inference": lambda: torch.inference_mode()(lambda: torch.randn(BATCH, 12).double())(),
        }
        critics, steps = make()
        make_fake = kinds.get(kind, kinds["dense"])
        outputs: list[Tensor] = []
        for step in steps:
            torch.manual_seed(3)
            fakes = [make_fake if kind == "function" else make_fake() for _ in range(self.STEPS)]
            real = torch.randn(BATCH, 12).double()
            torch.manual_seed(4)
            outputs.append(torch.stack([torch.stack(step(real, fake)) for fake in fakes]))
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(list(critics[0].parameters()), list(critics[1].parameters()), rtol=1e-9, atol=1e-9)
        assert HostGraph.captures == 1
        assert [capturing for capturing, _ in compilations] == [False]

    def test_a_changed_number_compiles_nothing_anew(self, compilations: list[Any], make: Any) -> None:
        critics, steps = make(penalty=None)
        for i in range(3 * self.STEPS):
            batch = samples((12,))
            for step in steps:
                for group in step._optimization.inner.param_groups:
                    group["lr"] = 1e-3 * 0.9 ** (i // self.STEPS)
                step(*batch)
        torch.testing.assert_close(list(critics[0].parameters()), list(critics[1].parameters()), rtol=1e-9, atol=1e-9)
        assert len(compilations) == 1
        assert HostGraph.captures == 3

    def test_moved_weights_are_captured_and_not_compiled_anew(self, compilations: list[Any], make: Any) -> None:
        critics, steps = make(penalty=None)
        for _ in range(2):
            for _ in range(self.STEPS):
                batch = samples((12,))
                for step in steps:
                    step(*batch)
            for critic in critics:
                critic[0].weight.data = critic[0].weight.data.clone()
        torch.testing.assert_close(list(critics[0].parameters()), list(critics[1].parameters()), rtol=1e-9, atol=1e-9)
        assert len(compilations) == 1
        assert HostGraph.captures == 2

    def test_it_goes_on_without_a_graph(self, compilations: list[Any], make: Any) -> None:
        """An optimizer's hook that a capture does not allow: a warning, and no update is lost or doubled."""

        def refuse(*_: Any) -> None:
            assert not HostGraph.capturing, "the hook asks the device"

        critics, steps = make(penalty=None)
        steps[0]._optimization.inner.register_step_pre_hook(refuse)
        refused = backends._Compiled.UNCOMPILED_CALLS + GraphRunner.WARM_UP
        for i in range(self.STEPS):
            batch = samples((12,))
            expected = pytest.warns(
                RuntimeWarning, match="(?s)hook asks the device.*; it goes on compiled, without a graph$"
            )
            with expected if i == refused else nullcontext():
                steps[0](*batch)
            steps[1](*batch)
        torch.testing.assert_close(list(critics[0].parameters()), list(critics[1].parameters()), rtol=1e-9, atol=1e-9)
        assert len(compilations) == 1 and steps[0].backend == "compile"

    def test_copies_start_anew(self, compilations: list[Any], make: Any) -> None:
        _, steps = make(penalty=None)
        for _ in range(self.STEPS):
            steps[0](*samples((12,)))
        copied = copy.deepcopy(steps[0])  # of another critic
        for _ in range(self.STEPS):
            copied(*samples((12,)))
        assert HostGraph.captures == 2 and len(compilations) == 2


def test_what_cannot_be_captured(capture_on_the_host: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """backend="graph" raises; "auto" warns and continues eagerly, without a lost or doubled update."""

    def critic(x: Tensor) -> Tensor:
        return x @ weight if weight.sum().item() < 1e9 else x

    weight = nn.Parameter(torch.randn(12, 1, dtype=torch.float64))
    other = nn.Linear(12, 1, bias=False).double()
    other.weight.data = weight.detach().t().clone()
    batches = [samples((12,)) for _ in range(6)]
    step = CriticStep(critic, sgd([weight]), penalty=None, backend="graph")
    for batch in batches[:3]:
        step(*batch)
    before = weight.detach().clone()
    with pytest.raises(
        RuntimeError, match="^the step cannot be captured in a CUDA graph, take backend='eager': .*asks the device"
    ):
        step(*batches[3])
    assert torch.equal(weight, before)

    weight.data = other.weight.detach().t().clone()
    step = CriticStep(critic, sgd([weight]), penalty=None)
    expected_step = CriticStep(other, sgd(other.parameters()), penalty=None, backend="eager")
    assert step.backend == "graph"
    for i, batch in enumerate(batches):
        expected_step(*batch)
        with pytest.warns(RuntimeWarning, match="it goes on eagerly") if i == 3 else nullcontext():
            step(*batch)
    assert step.backend == "eager" and "cannot be captured" in step.reason
    torch.testing.assert_close(weight, other.weight.t(), rtol=1e-12, atol=1e-12)


def test_a_new_function_at_every_step_is_warned_about(capture_on_the_host: list[Any]) -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, sgd(critic.parameters()), backend="graph")
    real, fake = samples((12,), dtype=torch.float32)
    for _ in range(8):
        step(real, lambda: fake)
    with pytest.warns(RuntimeWarning, match="more than 8 kinds of inputs"):
        step(real, lambda: fake)
    with pytest.raises(TypeError, match="args: a captured or compiled step takes tensors and hashable values"):
        step(real, fake, bytearray())
