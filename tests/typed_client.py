"""A client of every public name, which `make lint` has mypy and pyright check in strict mode. It is not run."""

from functools import partial
from pathlib import Path
from typing import Any, assert_type

import torch
from torch import Tensor, nn

import wgan_fast
from wgan_fast import (
    ArgumentError,
    CriticLoss,
    CriticOutput,
    CriticStep,
    GeneratorStep,
    bench,
    clip_weights_,
    critic_loss,
    discriminator_loss,
    distances,
    doctor,
    dragan_penalty,
    experiments,
    finite_difference_penalty,
    generator_loss,
    gradient_penalty,
    input_gradient,
    interpolate,
    losses,
    minimax_generator_loss,
    non_saturating_generator_loss,
    ops,
    optim,
    penalties,
    r1_penalty,
    r1_r2_penalty,
    r2_penalty,
    reference,
    relativistic_critic_loss,
    relativistic_generator_loss,
    step,
    train,
    wgan_div_penalty,
)
from wgan_fast.step import Backend
from wgan_fast.train import TrainConfig, TrainedGenerator, Trainer, fit

critic, generator = nn.Linear(2, 1), nn.Linear(3, 2)
real, fake, labels = torch.randn(8, 2), torch.randn(8, 2), torch.zeros(8, dtype=torch.int64)

assert_type(interpolate(real, fake), Tensor)
assert_type(gradient_penalty(critic, real, fake, weight=10.0, target=1.0, one_sided=True), Tensor)
assert_type(gradient_penalty(critic, (real, real), (fake, fake), labels), Tensor)
assert_type(r1_penalty(critic, real), Tensor)
assert_type(r2_penalty(critic, fake), Tensor)
assert_type(r1_r2_penalty(critic, real, fake), Tensor)
assert_type(dragan_penalty(critic, real), Tensor)
assert_type(wgan_div_penalty(critic, real, fake), Tensor)
assert_type(finite_difference_penalty(critic, real), Tensor)
scores, gradient = input_gradient(critic, real)
assert_type(scores, Tensor)

assert_type(critic_loss(scores, scores), Tensor)
assert_type(discriminator_loss(scores, scores), Tensor)
assert_type(generator_loss(scores), Tensor)
assert_type(minimax_generator_loss(scores), Tensor)
assert_type(non_saturating_generator_loss(scores), Tensor)
assert_type(relativistic_critic_loss(scores, scores), Tensor)
assert_type(relativistic_generator_loss(scores, scores), Tensor)
assert_type(losses.dual_estimate(critic, real, fake), Tensor)

loss = CriticLoss(critic, penalty=partial(r1_penalty, weight=1.0), loss=discriminator_loss)
assert_type(loss(real, fake), CriticOutput)
assert_type(loss(real, fake).wasserstein, Tensor)
assert_type(loss.gradient_norms, Tensor | None)

rmsprop = optim.RMSprop(critic.parameters(), lr=5e-5, clip=0.01)
settings = optim.lazy_adam_settings(2e-3, (0.0, 0.99), every=16)
adam = torch.optim.Adam(generator.parameters(), **settings)
backend: Backend = "eager"
critic_step = CriticStep(critic, rmsprop, penalty=None, backend=backend)
assert_type(critic_step(real, lambda: fake), CriticOutput)
assert_type(critic_step.gradient_norm, Tensor | None)
assert_type(critic_step.skipped, int)
generator_step = GeneratorStep(generator, critic, adam)
assert_type(generator_step(torch.randn(8, 3)), Tensor)
clip_weights_(critic, 0.01)
clip_weights_([real], bound=0.01)

assert_type(ops.gradient_norm_penalty(real, weight=10.0, power=2.0), ops.NormPenalty)
assert_type(ops.gradient_norm_penalty(real).norms, Tensor)
points: step.Samples = partial(torch.randn, 8, 2)
assert_type(critic_step(real, points), CriticOutput)
names: tuple[str, ...] = step.BACKENDS


class Gain(torch.autograd.Function):
    pass


penalties.declare_piecewise_linear(Gain, adds=True)

masses = torch.full((8,), 1 / 8)
assert_type(distances.earth_movers_distance(real, fake), Tensor)
assert_type(distances.earth_movers_distance_1d(real[:, 0], fake[:, 0], masses, masses, power=2.0), Tensor)
assert_type(distances.sinkhorn_distance(real, fake, regularization=0.1), Tensor)
assert_type(distances.sliced_wasserstein(real, fake, projections=16), Tensor)
assert_type(distances.transport_plan(torch.rand(8, 8)), distances.TransportPlan)
assert_type(distances.transport_plan(torch.rand(8, 8)).cost, Tensor)
assert_type(distances.kl_divergence(masses, masses), Tensor)
assert_type(distances.js_divergence(masses.log(), masses.log(), log=True), Tensor)
assert_type(distances.total_variation(masses, masses, weights=masses), Tensor)
assert_type(distances.dual_estimate(critic, real, fake), Tensor)
assert_type(distances.QUADRATURE_AGREEMENT + distances.QUADRATURE_TOLERANCE, float)
assert_type(distances.TOTAL_TOLERANCE, dict[torch.dtype, float])

assert_type(reference.interpolate(real, fake, torch.rand(8)), Tensor)
assert_type(reference.gradient_norm_penalty(real, 10.0, 1.0, 2.0, False), tuple[Tensor, Tensor])
y, mask = reference.piecewise_linear(real, 0.2, 0.0, float("inf"))
assert_type(reference.piecewise_linear_(real, 0.2, 0.0, float("inf")), Tensor)
assert_type(reference.apply_mask(y, mask, 0.2, real.stride()), Tensor)
assert_type(reference.smooth_activation(real, "softplus", [1.0, 20.0]), Tensor)
reference.smooth_activation_(real, "tanh", [])
assert_type(reference.normalization(real, None, None, (1, 1, 2), 1e-5, True), tuple[Tensor, Tensor])
assert_type(reference.nonfinite([real, fake]), Tensor)
reference.clip_weights_([real], 0.01)
reference.rmsprop_([real], [fake], [real**2], torch.tensor(1e-3), 0.9, 1e-8, 0.0, False, 0.01, None, None)
assert_type(reference.gradient_penalty(critic, real, fake, one_sided=True), Tensor)
assert_type(reference.critic_step(critic, adam, real, fake, penalty=gradient_penalty), Tensor)

assert_type(wgan_fast.__version__, str)
facts: doctor.Facts = doctor.collect()
found: list[doctor.Finding] = doctor.diagnose(facts)
assert_type(doctor.report(facts), str)
assert_type(doctor.main(["--json"]), int)
assert_type(bench.main(["--seconds", "1"]), int)
chapters: dict[str, tuple[str, ...]] = experiments.CHAPTERS
modules: list[Any] = [train]


def run() -> dict[str, Any]:
    config = TrainConfig(algorithm="wgan-gp", model="mlp", backend=backend, precision="32", out=Path("runs/typed"))
    try:
        trainer = Trainer(config)
    except ArgumentError as error:
        assert_type(error.argument, str)
        raise
    TrainConfig(algorithm="wgan")
    # Errors that are expected: the checkers complain if they find none.
    TrainConfig(algorithm="wgpan")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CriticStep(critic, rmsprop, backend="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TrainedGenerator.load(Path("runs/typed"))
    assert_type(fit(real, steps=1), TrainedGenerator)
    return trainer.run()
