"""Augmentation: what it does to an image, that gradients pass, and that real and generated images go through it."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, run, small_config
from wgan_fast.train import Trainer
from wgan_fast.train.augmentation import OPERATIONS, Augmentation, colour, cutout, flip, translation

IMAGES = torch.rand(3, 2, 8, 16, dtype=torch.float64) * 2 - 1


def each(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def test_flips_are_left_to_right() -> None:
    changed = flip(IMAGES, each(0.1, 0.6, 0.9))
    assert torch.equal(changed[0], IMAGES[0]) and torch.equal(changed[1:], IMAGES[1:].flip(3))


def test_translations_move_by_whole_pixels_and_fill_with_grey() -> None:
    changed = translation(IMAGES, each(0.0, 0.5, 0.999), each(0.999, 0.5, 0.0))  # by -1, 0, 1 and 2, 0, -2 pixels
    assert torch.equal(changed[1], IMAGES[1])
    assert torch.equal(changed[0, :, :-1, 2:], IMAGES[0, :, 1:, :-2])
    assert torch.equal(changed[2, :, 1:, :-2], IMAGES[2, :, :-1, 2:])
    assert changed[0, :, -1].abs().max() == changed[0, :, :, :2].abs().max() == changed[2, :, 0].abs().max() == 0


def test_a_quarter_is_cut_out() -> None:
    changed = cutout(IMAGES, each(0.5, 0.0, 0.999), each(0.5, 0.0, 0.999))
    gone = changed == 0
    assert gone[0].float().mean() in (3 / 8 * 7 / 16, 4 / 8 * 8 / 16)
    assert gone[1, :, :2, :4].all() and gone[2, :, -2:, -4:].all() and not gone[1, :, 4:].any()
    assert torch.equal(changed[~gone], IMAGES[~gone])


def test_colours_change_brightness_saturation_and_contrast() -> None:
    half = each(0.5, 0.5, 0.5)
    torch.testing.assert_close(colour(IMAGES, half, half, half), IMAGES)
    torch.testing.assert_close(colour(IMAGES, half + 0.2, half, half), IMAGES + 0.2)
    grey = colour(IMAGES, half, half * 0, half)
    torch.testing.assert_close(grey[:, 0], grey[:, 1])
    contrast = colour(IMAGES, half, half, half * 2)
    torch.testing.assert_close(contrast.std(dim=(1, 2, 3)), IMAGES.std(dim=(1, 2, 3)) * 1.5)
    torch.testing.assert_close(contrast.mean(dim=(1, 2, 3)), IMAGES.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_pass(name: str) -> None:
    augmentation = Augmentation([name])

    def change(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return augmentation(images)

    assert torch.autograd.gradcheck(change, IMAGES[:, :, :3, :3].clone().requires_grad_())
    assert not torch.equal(change(IMAGES), IMAGES)


def test_each_process_changes_its_share_as_one_would() -> None:
    images = torch.rand(4, 1, 8, 8)

    def changed(rank: int, world: int) -> torch.Tensor:
        torch.manual_seed(0)
        return Augmentation([*OPERATIONS], rank, world)(images[rank::world])

    assert torch.equal(torch.stack([changed(0, 2), changed(1, 2)], dim=1).flatten(0, 1), changed(0, 1))


def test_the_critic_sees_augmented_images_alone(few_samples: None, tmp_path: Path, monkeypatch: Any) -> None:
    """Real ones in its own update, generated ones in both; samples of the run are not augmented."""
    monkeypatch.setitem(OPERATIONS, "flip", (lambda images, u: images * 0 + 0.25, 1))
    seen: list[bool] = []
    settings = {"data": "digits", "steps": 1, "model": "mlp", "augment": "flip", "out": tmp_path / "run", "n_critic": 1}
    trainer = Trainer(small_config(**settings, batch_size=8, width=8))
    trainer.critic.register_forward_pre_hook(lambda _, inputs: seen.append(bool((inputs[0] == 0.25).all())))
    monkeypatch.setattr(trainer.evaluation, "draw", lambda *args: None)
    trainer.run()
    assert len(seen) >= 3 and all(seen)
    assert trainer.evaluation.generated(4).std() > 0


def test_an_augmented_run_goes_on_as_if_it_had_not_stopped(few_samples: None, tmp_path: Path) -> None:
    settings = {"data": "digits", "model": "mlp", "augment": "flip,translation,cutout,colour", "decay": False}
    run(tmp_path / "whole", **settings)
    run(tmp_path / "parts", **settings | {"steps": 2})
    run(tmp_path / "parts", resume=True, **settings)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt")["critic"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_cannot_be_augmented_is_told(tmp_path: Path) -> None:
    for options, message in (
        (["--augment", "mixup"], "--augment: expected some of flip,translation,cutout,colour, got 'mixup'"),
        (["--augment", "flip"], "--augment: applies to images only"),
    ):
        result = cli("train", "--out", tmp_path / "run", *options)
        assert result.exit_code == 2 and result.stderr.startswith(f"error: {message}")
