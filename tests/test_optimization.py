"""The application of gradients: skipped updates, loss scaling, clipping of weights, the choice of fused Adam."""

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from critics import CRITICS
from updates import (
    Optimizer,
    adam,
    compare_with_textbook,
    samples,
    updated,
)
from wgan_fast import (
    CriticStep,
    GeneratorStep,
    gradient_penalty,
    optim,
    reference,
    wgan_div_penalty,
)
from wgan_fast._step.optimization import Optimization


def optimizers() -> dict[str, Optimizer]:
    return {
        "fused momentum": partial(torch.optim.SGD, lr=1e-2, momentum=0.9, fused=True),
        "fused Adam": adam,
        "Adam": partial(torch.optim.Adam, lr=1e-2),
        "momentum": partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
        "RMSprop": partial(optim.RMSprop, lr=1e-2),
    }


def everything(critic: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone() for tensor in [*critic.parameters(), *state]]


@pytest.mark.parametrize("name", optimizers())
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_skips_the_update(name: str, value: float) -> None:
    critic = CRITICS["mlp"][0]()
    optimizer = optimizers()[name](critic.parameters())
    step = CriticStep(critic, optimizer)
    real, fake = samples((12,), dtype=torch.float32)
    step(real, fake)
    before = everything(critic, optimizer)
    assert step.skipped == 0
    broken = real.clone()
    broken[2, 3] = value
    with pytest.warns(RuntimeWarning, match="not finite.* 1 skipped so far"):
        step(broken, fake)
    assert all(map(torch.equal, everything(critic, optimizer), before))
    step(real, fake)
    assert step.skipped == 1
    assert not torch.equal(critic[0].weight, before[0])


@pytest.mark.parametrize("name", optimizers())
@pytest.mark.parametrize("scaler", [False, True])
def test_first_update_is_skipped(name: str, scaler: bool) -> None:
    """The later updates are those of a step that never met the bad batch."""
    critic = CRITICS["mlp"][0]()
    other = copy.deepcopy(critic)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**8, backoff_factor=0.5) if scaler else None for _ in range(2)]
    steps = [
        CriticStep(c, optimizers()[name](c.parameters()), penalty=None, scaler=s)
        for c, s in zip((critic, other), scalers, strict=True)
    ]
    real, fake = samples((12,), dtype=torch.float32)
    with pytest.warns(RuntimeWarning, match="1 skipped so far"):
        steps[0](real * torch.nan, fake)
    for _ in range(3):
        for step in steps:
            step(real, fake)
    # Not the last bias, whose gradient is the rounding of zero.
    torch.testing.assert_close(list(critic.parameters())[:-1], list(other.parameters())[:-1])


def test_float16_with_a_scaler() -> None:
    critic, shape = CRITICS["dcgan"][0](), CRITICS["dcgan"][1]
    real, fake = samples(shape, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000, backoff_factor=2.0**-10)
    step = CriticStep(critic, adam(critic.parameters()), scaler=scaler)
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    with torch.autocast("cpu", torch.float16), pytest.warns(RuntimeWarning, match="not finite"):
        step(real, fake)
    assert all(map(torch.equal, critic.parameters(), before))
    with torch.autocast("cpu", torch.float16), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(6):
            output = step(real, fake)
    assert 1 <= step.skipped < 6 and scaler.get_scale() < 2.0**40
    assert output.loss.isfinite() and not torch.equal(critic[0].weight, before[0])


def test_scaler_reaches_the_penalty_and_leaves_the_numbers() -> None:
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    batches = [samples((12,)) for _ in range(3)]
    for penalty in (gradient_penalty, partial(wgan_div_penalty, k=0.1)):
        steps = [
            CriticStep(critic, adam(critic.parameters()), penalty=penalty),
            CriticStep(other, adam(other.parameters()), penalty=penalty, scaler=scaler),
        ]
        expected, actual = (updated(c, s, batches) for c, s in zip((critic, other), steps, strict=True))
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", [partial(torch.optim.RMSprop, lr=1e-2), partial(optim.RMSprop, lr=1e-2), adam])
def test_weights_are_clipped_after_the_update(optimizer: Optimizer) -> None:
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    step = CriticStep(critic, optimizer(critic.parameters()), penalty=None, clip=0.05)
    expected = optimizer(other.parameters())
    for _ in range(3):
        real, fake = samples((12,))
        step(real, fake)
        expected.zero_grad()
        (other(fake).mean() - other(real).mean()).backward()
        expected.step()
        reference.clip_weights_(other.parameters(), 0.05)
    for mine, theirs in zip(critic.parameters(), other.parameters(), strict=True):
        assert mine.abs().max() <= 0.05
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_where_the_user_left_it_open(optimizer: Optimizer) -> None:
    critic = nn.Linear(2, 1)
    left_open = optimizer(critic.parameters())
    CriticStep(critic, left_open)(torch.randn(4, 2), torch.randn(4, 2))
    assert left_open.param_groups[0]["fused"] is True
    left_open.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    assert left_open.param_groups[1]["fused"] is True
    critic(torch.ones(1, 2)).sum().backward()
    plain = optimizer(critic.parameters())
    plain.step()
    open_again = optimizer(critic.parameters())
    step = CriticStep(critic, open_again)
    open_again.load_state_dict(plain.state_dict())
    assert open_again.param_groups[0]["fused"] is None
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    with pytest.warns(RuntimeWarning, match="not finite"):
        step(torch.full((4, 2), float("inf")), torch.ones(4, 2))
    assert all(map(torch.equal, critic.parameters(), before))
    for chosen in ({"foreach": False}, {"foreach": True}, {"fused": False}, {"differentiable": True}):
        explicit = optimizer(critic.parameters(), **chosen)
        before = dict(explicit.defaults)
        step = CriticStep(critic, explicit)
        if "differentiable" not in chosen:  # that takes no leaves
            step(torch.randn(4, 2), torch.randn(4, 2))
        assert explicit.defaults == before
        assert explicit.param_groups[0]["fused"] is before["fused"]


def test_fused_goes_on_from_the_state_of_another() -> None:
    """Fused Adam continues from a checkpoint of the plain implementation."""
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    plain, resumed = (torch.optim.Adam(c.parameters(), lr=1e-2, eps=1e-3, foreach=False) for c in (critic, other))
    batches = [samples((12,)) for _ in range(4)]
    for batch in batches[:2]:
        for c, adam_ in ((critic, plain), (other, resumed)):
            torch.manual_seed(1)
            reference.critic_step(c, adam_, *batch)
    state = resumed.state_dict()
    resumed = torch.optim.Adam(other.parameters(), lr=1e-2, eps=1e-3)
    resumed.load_state_dict({**state, "param_groups": [{**group, "foreach": None} for group in state["param_groups"]]})
    step = CriticStep(other, resumed)
    for batch in batches[2:]:
        torch.manual_seed(2)
        reference.critic_step(critic, plain, *batch)
        torch.manual_seed(2)
        step(*batch)
    assert resumed.param_groups[0]["fused"] is True
    for actual, expected in zip(other.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


class ComplexSpectrum(nn.Module):
    """A complex layer on a spectrum, as discriminators of sound have."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(7, 4, dtype=torch.complex128), nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(torch.fft.rfft(x)).abs())


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=1e-2), partial(torch.optim.Adam, lr=1e-2)])
def test_complex_parameters(optimizer: Optimizer) -> None:
    critic = ComplexSpectrum()
    compare_with_textbook(critic, [samples((12,)) for _ in range(3)], optimizer=optimizer)

    adam = torch.optim.Adam(critic.parameters())
    step = CriticStep(critic, adam)
    real, fake = samples((12,))
    step(real, fake)
    assert adam.param_groups[0]["fused"] is None  # fused Adam takes no complex parameters
    before = everything(critic, adam)
    with pytest.warns(RuntimeWarning, match="not finite"):
        step(real * torch.nan, fake)
    assert all(map(torch.equal, everything(critic, adam), before))


@pytest.mark.parametrize(
    ("error", "argument", "arguments"),
    [
        (TypeError, "clip", {"critic": ComplexSpectrum(), "clip": 0.1}),
        (TypeError, "scaler", {"critic": ComplexSpectrum(), "scaler": torch.amp.GradScaler("cpu")}),
        (ValueError, "backend", {"critic": nn.Linear(12, 1), "backend": "fast"}),
        (TypeError, "penalty", {"critic": nn.Linear(12, 1), "penalty": 10.0}),
    ],
)
def test_an_error_leaves_the_optimizer_as_it_was(error: type, argument: str, arguments: dict[str, Any]) -> None:
    adam = torch.optim.Adam(arguments["critic"].parameters())
    before = (copy.deepcopy(adam.state_dict()), dict(adam.defaults))
    with pytest.raises(error, match=f"^{argument}: "):
        CriticStep(optimizer=adam, **arguments)
    assert (adam.state_dict(), adam.defaults) == before


def wrapped_by(tool: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    if tool == "Fabric":
        fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
        return fabric.setup(network, optimizer)[1]
    if tool == "Lightning":
        lightning = pytest.importorskip("lightning")
        wrapped = pytest.importorskip("lightning.pytorch.core.optimizer").LightningOptimizer(optimizer)
        module, trainer = lightning.LightningModule(), lightning.Trainer(accelerator="cpu", logger=False)
        module.trainer, wrapped._strategy, trainer.strategy._lightning_module = trainer, trainer.strategy, module
        module.automatic_optimization = False
        return wrapped
    return pytest.importorskip("accelerate").Accelerator(cpu=True).prepare(optimizer)


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("tool", ["Fabric", "Lightning", "Accelerate"])
def test_wrapped_optimizers(tool: str, fused: bool | None) -> None:
    """Steps with a wrapped optimizer change the weights as with the optimizer itself, and skip what is not finite."""
    networks = [nn.Linear(2, 1) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-2, fused=fused) for network in networks]
    optimizers[1] = wrapped_by(tool, networks[1], optimizers[1])
    real, fake, t = torch.randn(8, 2), torch.randn(8, 2), torch.rand(8)
    steps = [
        CriticStep(network, optimizer, penalty=partial(gradient_penalty, t=t))
        for network, optimizer in zip(networks, optimizers, strict=True)
    ]
    generator = nn.Linear(3, 2)
    generator_optimizer = wrapped_by(tool, generator, torch.optim.Adam(generator.parameters(), lr=1e-2, fused=fused))
    generator_step = GeneratorStep(generator, networks[1], generator_optimizer)
    for step in steps:
        step(real, fake)
    torch.testing.assert_close(networks[1].weight, networks[0].weight, rtol=0, atol=0)
    before = generator.weight.clone(), networks[1].weight.clone()
    generator_step(torch.randn(8, 3))
    assert not torch.equal(generator.weight, before[0])
    with pytest.warns(RuntimeWarning, match="a gradient was not finite"):
        steps[1](real * torch.inf, fake)
    assert torch.equal(networks[1].weight, before[1]) and steps[1].skipped == 1


@pytest.mark.parametrize("step", [CriticStep, partial(GeneratorStep, nn.Linear(3, 2))])
def test_an_optimizer_that_unscales_is_refused(step: Any) -> None:
    network = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(network.parameters())
    optimizer.scaler = torch.amp.GradScaler("cpu")  # as Accelerate's has it for float16
    with pytest.raises(TypeError, match="optimizer.optimizer, and pass its GradScaler as scaler="):
        step(network, optimizer)


def test_a_step_that_should_accumulate_is_refused() -> None:
    """It would lose the gradients of all batches but the last."""
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True, gradient_accumulation_steps=2)
    network = nn.Linear(2, 1)
    network, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.1))
    step, before = CriticStep(network, optimizer), network.weight.clone()
    try:
        with accelerator.accumulate(network), pytest.raises(ValueError, match="optimizer: Accelerate accumulates"):
            step(*torch.randn(2, 8, 2))
        assert torch.equal(network.weight, before)
        with accelerator.accumulate(network):  # the second batch makes the update
            step(*torch.randn(2, 8, 2))
        assert not torch.equal(network.weight, before)
    finally:
        accelerator.gradient_state._reset_state()


@pytest.mark.slow
def test_lightning_counts_the_updates(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class WGAN(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = nn.Linear(3, 2), nn.Linear(2, 1)

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.Adam(network.parameters()) for network in (self.critic, self.generator)]

        def on_fit_start(self) -> None:
            critic_adam, generator_adam = self.optimizers()
            self.critic_step = CriticStep(self.critic, critic_adam)
            self.generator_step = GeneratorStep(self.generator, self.critic, generator_adam)

        def training_step(self, real: Tensor, index: int) -> None:
            self.critic_step(real, lambda: self.generator(torch.randn(len(real), 3)))
            if index % 2 == 1:
                self.generator_step(torch.randn(len(real), 3))

    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **off)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises on workers and loggers
        trainer.fit(WGAN(), torch.utils.data.DataLoader(torch.randn(16, 2), batch_size=4))
    assert trainer.global_step == 4 + 2


def test_a_foreign_optimizer_is_not_taken_for_one_that_skips_on_the_device() -> None:
    class Foreign(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"fused": True})

    parameters = [nn.Parameter(torch.ones(2))]
    assert not Optimization(Foreign(parameters)).skips_on_device
    assert Optimization(copy.deepcopy(torch.optim.Adam(parameters, fused=True))).skips_on_device
