"""Compiled steps, and all backends on a GPU: the numbers of the textbook."""

import copy
import gc
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from critics import CRITICS, Projection
from updates import BATCH, compare_with_textbook, samples, sgd
from wgan_fast import CriticStep, GeneratorStep, gradient_penalty, optim, reference
from wgan_fast._step.optimization import SkippedUpdates

compiled = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's


def on_a_gpu(test: Any) -> Any:
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")(test))


@compiled
def test_what_cannot_be_compiled() -> None:
    critic = CRITICS["mlp"][0]()
    penalty = partial(gradient_penalty, generator=torch.Generator())
    with pytest.raises(ValueError, match="^backend: a penalty with a random generator of its own"):
        CriticStep(critic, sgd(critic.parameters()), penalty=penalty, backend="compile")
    with pytest.raises(ValueError, match="^backend: a network is compiled already"):
        CriticStep(torch.compile(critic), sgd(critic.parameters()), backend="compile")

    def decides(x: Tensor) -> Tensor:
        return critic(x) if x.sum().item() < 1e9 else critic(-x)

    step = CriticStep(decides, sgd(critic.parameters()), penalty=None, backend="compile")
    batch = samples((12,), dtype=torch.float32)
    step(*batch)
    before = copy.deepcopy(critic)
    with pytest.raises(RuntimeError, match="^the step cannot be compiled, take backend='eager'"):
        step(*batch)
    assert all(map(torch.equal, critic.parameters(), before.parameters()))


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("name", ["mlp", "dcgan", "layer norm"])
def test_compiled_step(name: str) -> None:
    make, shape = CRITICS[name]
    compare_with_textbook(make().double(), [samples(shape) for _ in range(4)], "compile")


@pytest.mark.slow
@compiled
@pytest.mark.filterwarnings("ignore:critic. .* is a BatchNorm1d:UserWarning")
def test_compiled_step_of_other_kinds() -> None:
    """Changing buffers, labels, a frozen layer, another batch size, learning rate and training mode."""
    critic = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    compare_with_textbook(critic.double(), [samples((12,)) for _ in range(4)], "compile")

    labels = torch.arange(BATCH) % 4
    compare_with_textbook(Projection().double(), [(*samples((12,)), labels) for _ in range(4)], "compile")

    critic = CRITICS["mlp"][0]().double()
    critic[0].requires_grad_(False)
    expected_weight = critic[0].weight.clone()
    trained = copy.deepcopy(critic)
    steps = [CriticStep(c, sgd(c.parameters()), backend=b) for c, b in ((critic, "eager"), (trained, "compile"))]
    outputs: list[list[Tensor]] = []
    for step in steps:
        torch.manual_seed(1)
        outputs.append([])
        for i in range(8):
            if i == 4:
                step._optimization.optimizer.param_groups[0]["lr"] = 1e-3
            outputs[-1].append(torch.stack(step(*samples((12,), BATCH + i % 2))))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(trained[0].weight, expected_weight)


@on_a_gpu
@compiled
@pytest.mark.parametrize("name", ["mlp", "dcgan", "resnet", "layer norm", "spectral norm"])
@pytest.mark.parametrize("backend", ["eager", "graph", "compile"])
def test_on_a_gpu(name: str, backend: str) -> None:
    make, shape = CRITICS[name]
    torch.manual_seed(0)
    critic = make().cuda()
    generator = torch.Generator("cuda").manual_seed(5)
    capturable = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9), fused=True, capturable=True)
    expected_critic = copy.deepcopy(critic).double()
    penalty = gradient_penalty if backend == "compile" else partial(gradient_penalty, generator=generator)
    step = CriticStep(critic, capturable(critic.parameters()), penalty=penalty, backend=backend)
    optimizer = capturable(expected_critic.parameters())
    numbers = torch.Generator("cuda").manual_seed(5)
    for i in range(16):  # eight of each size: compile, warm up, capture, replay
        real, fake = (batch.cuda().float() for batch in samples(shape, BATCH + i % 2))

        def textbook_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
            t = torch.rand(len(real), device="cuda", generator=numbers)
            return reference.gradient_penalty(critic, real, fake, t=t.double())

        if backend == "compile":  # it draws from PyTorch's generator
            torch.cuda.manual_seed(i)
            numbers.manual_seed(i)
        output = step(real, fake)
        reference_step = CriticStep(expected_critic, optimizer, penalty=textbook_penalty, backend="eager")
        expected = reference_step(real.double(), fake.double())
        torch.testing.assert_close(torch.stack(output), torch.stack(expected).float(), rtol=1e-4, atol=1e-4)


def listen_twice(step: CriticStep) -> None:
    """The first copy of the counter may have been made before the skipped update."""
    for _ in range(2):
        torch.cuda.synchronize()
        for _ in range(SkippedUpdates.EVERY):
            step._optimization.skipped.listen()


@on_a_gpu
@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("scaler", [False, True])
def test_skipped_update_on_a_gpu(backend: str, scaler: bool) -> None:
    """The step does not wait for the device, so a later step warns."""
    critic = CRITICS["mlp"][0]().cuda()
    step = CriticStep(
        critic,
        optim.RMSprop(critic.parameters(), lr=1e-3, clip=0.5),
        scaler=torch.amp.GradScaler("cuda", init_scale=256.0) if scaler else None,
        backend=backend,
    )
    batches = [tuple(batch.cuda().float() for batch in samples((12,))) for _ in range(8)]
    for i, (real, fake) in enumerate(batches):
        if i == 5:
            real[0, 0] = torch.nan
            before = copy.deepcopy(critic)
        step(real, fake)
        if i == 5:
            assert all(map(torch.equal, critic.parameters(), before.parameters()))
            with pytest.warns(RuntimeWarning, match="1 skipped so far"):
                listen_twice(step)
    assert step.skipped == 1
    assert not torch.equal(critic[0].weight, before[0].weight)


@on_a_gpu
def test_captured_generator_step_on_a_gpu() -> None:
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 12)).cuda()
    other, critic = copy.deepcopy(generator), CRITICS["mlp"][0]().cuda()
    latent = partial(torch.randn, BATCH, 3, device="cuda")
    losses = []
    for network, backend in ((generator, "graph"), (other, "eager")):
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True, capturable=True)
        step = GeneratorStep(network, critic, optimizer, backend=backend)
        torch.cuda.manual_seed(1)
        losses.append(torch.stack([step(latent) for _ in range(8)]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(generator.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@on_a_gpu
def test_refused_capture_on_a_gpu() -> None:
    """The caller's stream, PyTorch's generator and other captured steps work as before."""

    class Asks(nn.Module):
        """Reads a value on the host, which a capture forbids."""

        def __init__(self) -> None:
            super().__init__()
            self.critic = CRITICS["mlp"][0]()

        def forward(self, x: Tensor) -> Tensor:
            return self.critic(x if x.sum().item() < 1e9 else -x)

    def step_of(critic: nn.Module) -> CriticStep:
        return CriticStep(critic, optim.RMSprop(critic.parameters(), lr=1e-3), backend="graph")

    batch = [batch.cuda().float() for batch in samples((12,))]
    critic, stream = CRITICS["mlp"][0]().cuda(), torch.cuda.current_stream()
    step, refused = step_of(critic), step_of(Asks().cuda())
    for _ in range(5):
        step(*batch)
    for _ in range(3):
        refused(*batch)
    with pytest.raises(RuntimeError, match="^the step cannot be captured in a CUDA graph, take backend='eager'"):
        refused(*batch)
    assert torch.cuda.current_stream() == stream
    for going_on in (step, step_of(CRITICS["mlp"][0]().cuda())):
        torch.cuda.manual_seed(3)
        expected = torch.rand(4, device="cuda")
        torch.cuda.manual_seed(3)
        assert torch.equal(torch.rand(4, device="cuda"), expected)
        penalties = [float(going_on(*batch).penalty) for _ in range(5)]
        assert len(set(penalties)) == 5  # fresh interpolates every time


@on_a_gpu
def test_memory_of_replays_on_a_gpu() -> None:
    """Replays with inputs that have a graph do not keep that graph."""
    critic, encoder = CRITICS["mlp"][0]().cuda(), nn.Sequential(nn.Linear(12, 12), nn.Tanh()).cuda()
    step = CriticStep(critic, optim.RMSprop(critic.parameters(), lr=1e-3), backend="graph")
    real, fake = (batch.cuda().float() for batch in samples((12,)))
    sizes = []
    for _ in range(4):
        for _ in range(50):
            step(encoder(real), fake)
        gc.collect()
        sizes.append(torch.cuda.memory_allocated())
    assert sizes[3] <= sizes[1]
