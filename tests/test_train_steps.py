"""The updates of a run: how many of the critic, which are penalised, and the average of the generator's weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import small_config
from wgan_fast import CriticStep
from wgan_fast.train import TrainConfig, Trainer


def test_the_boost_is_for_the_first_steps_and_every_500th(tmp_path: Path) -> None:
    trainer = Trainer(TrainConfig(algorithm="wgan", data="swissroll", faithful=True, width=4))
    counts = {step: trainer.steps.critic_updates(step) for step in (0, 24, 25, 499, 500, 501)}
    assert counts == {0: 100, 24: 100, 25: 5, 499: 5, 500: 100, 501: 5}


def test_a_lazy_penalty_weighs_more_and_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(TrainConfig(penalty_every=3, width=4, penalty_weight=2.0))
    steps, taken = trainer.steps, []
    trainer.history = SimpleNamespace(add=lambda output, gradient_norm: None)
    choose = steps.critic_step

    def chosen(batch: int) -> CriticStep:
        taken.append(choose(batch))
        return taken[-1]

    monkeypatch.setattr(steps, "critic_step", chosen)
    for number in range(7):
        trainer.update_critic(trainer.data.batch(number, trainer.config.batch_size, 0, slice(None)))
    assert [step is steps.penalised for step in taken] == [True, False, False, True, False, False, True]
    assert {step is steps.unpenalised for step in taken} == {True, False}
    assert steps.penalised._critic_loss.penalty.keywords["weight"] == 6.0
    assert steps.unpenalised._critic_loss.penalty is None


def test_average_follows_the_generator(few_samples, tmp_path):
    trainer = Trainer(small_config(steps=1, average_decay=0.0, out=tmp_path / "run"))
    trainer.run()
    for kept, trained in zip(trainer.averaged_generator.parameters(), trainer.generator.parameters(), strict=True):
        assert torch.equal(kept, trained)
        assert not kept.requires_grad
