"""What a run measures of its networks, in evaluation mode: distances, pictures, the critic's gradient norm."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast import interpolate
from wgan_fast.train.build import derive_seeds, open_data
from wgan_fast.train.config import TrainConfig, find_device
from wgan_fast.train.data.sources import Data
from wgan_fast.train.generator import TrainedGenerator, cyclic_labels, generate, seeded_latents
from wgan_fast.train.networks.base import evaluating
from wgan_fast.train.run.atomic import whole_file
from wgan_fast.train.run.checkpoint import check_same_data, load_checkpoint
from wgan_fast.train.run.history import Row
from wgan_fast.train.view import plots
from wgan_fast.train.view.features import make_features
from wgan_fast.train.view.metrics import Metrics, check_features, evaluate, feature_distances
from wgan_fast.train.view.progress import print_line

#: Generated and real samples that the last evaluation compares; the field's number for counting modes.
SAMPLES = 2500


class Evaluation:
    """Evaluates a generator and a critic, always on the same latent vectors and held-out samples.

    Args:
        config: the settings of the run.
        data: what it trains on.
        generator: the generator evaluated.
        critic: the critic, for pictures and gradient norms.

    Raises:
        ValueError: a held-out sample cannot be read; ``config.features`` names no function that makes a network from
            samples to features, or too few samples are held out for it.
    """

    def __init__(self, config: TrainConfig, data: Data, generator: nn.Module, critic: nn.Module | None = None) -> None:
        self._config, self._data, self._seed = config, data, derive_seeds(config.seed).evaluation
        self._generator, self._critic = generator, critic
        self._classes = len(data.classes) if config.conditional else 0
        self._features = make_features(config.features) if config.features else None
        real, _ = self._real(SAMPLES)  # at once: a damaged image among them should not be found after hours
        if self._features is not None:
            check_features(self._features, real)

    @torch.no_grad()
    def evaluate(self, count: int | None = None) -> Metrics:
        """Compares generated with held-out samples, 2,500 by default; see :func:`.metrics.evaluate`."""
        real, other_real = self._real(count or SAMPLES)
        generated = self.generated(len(real), self._labels(len(real)))
        metrics = evaluate(generated, real, other_real, self._data)
        if self._features is None:
            return metrics
        device = next(self._generator.parameters()).device
        return metrics | feature_distances(self._features, generated, real, device)

    def _real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Two sets of held-out samples, of at most ``count``; one where there is only one sample."""
        held_out = self._data.held_out(2 * count, self._seed).samples
        real, other_real = held_out.chunk(2) if len(held_out) > 1 else (held_out, None)
        return real, other_real

    def _labels(self, count: int) -> Tensor | None:
        """Labels that are as frequent as among the held-out samples; None without classes."""
        labels = self._data.held_out(2 * count, self._seed).labels
        if not self._classes or labels is None:
            return None
        return labels[torch.arange(count, device="cpu") % len(labels)]

    def generated(self, count: int, labels: Tensor | None = None) -> Tensor:
        """Samples of the generator, of these labels; by default with each label in turn."""
        latents = seeded_latents(count, self._config.latent_dimension, self._seed)
        device = next(self._generator.parameters()).device
        labels = cyclic_labels(count, self._classes) if labels is None else labels
        return generate(self._generator, latents, labels, device)

    def draw(self, path: Path, metrics: Metrics | None = None) -> None:
        """Writes a picture of generated samples."""
        path.parent.mkdir(exist_ok=True)
        real = self._data.held_out(SAMPLES, self._seed).samples
        critic = None if self._classes else self._critic  # its level sets; with classes there is one set for each
        # Images show each label in turn; a histogram beside that of real samples needs their frequencies.
        labels = None if self._data.decoder.kind == "images" else self._labels(SAMPLES)
        with evaluating(critic) if critic is not None else nullcontext():
            plots.plot(path, self.generated(SAMPLES, labels), real, self._data.decoder, critic, metrics)

    def finish(
        self, folder: Path, rows: Sequence[Row], more: Mapping[str, float], say: Callable[[str], None] = print_line
    ) -> Metrics:
        """Writes the figures and, last, ``metrics.json``, which says that the run is finished; returns what it holds.
        What fails is a warning and left out: the run has its last checkpoint already.

        Args:
            folder: of the run.
            rows: of its history.
            more: added to the metrics.
            say: prints a warning.
        """
        found: Metrics = {}
        with warning_of("evaluation", say):
            found = self.evaluate()
        metrics: Metrics = {**found, **more}
        with warning_of("samples.png", say):
            self.draw(folder / "samples.png", found or None)
        with warning_of("curve.png", say):
            plots.plot_curve(folder / "curve.png", rows)
        with warning_of("metrics.json", say), whole_file(folder / "metrics.json") as unfinished:
            unfinished.write_text(json.dumps(metrics, indent=2) + "\n")
        return metrics

    def gradient_norm(self, real: Tensor, labels: tuple[Tensor, ...]) -> float:
        """The mean norm of the critic's gradient between a batch of real and as many generated samples, for a critic
        without a penalty, which would tell its own.
        """
        assert self._critic is not None
        random = torch.Generator(real.device).manual_seed(self._seed)
        latents = torch.randn(len(real), self._config.latent_dimension, generator=random, device=real.device)
        with evaluating(self._critic):
            with torch.no_grad():
                points = interpolate(real, self._generator(latents, *labels), generator=random).requires_grad_()
            (gradient,) = torch.autograd.grad(self._critic(points, *labels).sum(), points)
        return gradient.flatten(1).norm(dim=1).mean().item()

    def of_weights(self) -> dict[str, float]:
        """The share of the critic's weights that lie at the bound of clipping; nothing without clipping."""
        if self._config.clip is None:
            return {}
        assert self._critic is not None
        weights = torch.cat([parameter.detach().flatten() for parameter in self._critic.parameters()])
        return {"clip_saturation": (weights.abs() >= self._config.clip).float().mean().item()}


@contextmanager
def warning_of(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Turns an error into a warning."""
    try:
        yield
    except Exception as error:  # a network of features, a full disk, a library for figures: anything
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        say(f"warning: {what}: {reason}; the training is not affected")


def evaluate_run(run: Path, config: TrainConfig, count: int | None = None) -> dict[str, Any]:
    """Evaluates the averaged generator of a run on its data: ``step`` and the metrics of :func:`.metrics.evaluate`.

    Args:
        run: the run folder.
        config: its settings, with the device to evaluate on.
        count: generated and held-out samples, at most; by default 2,500.

    Raises:
        ValueError: there is no whole checkpoint, or the data are not those of the run.
    """
    state = load_checkpoint(run, "run")
    generator, data = TrainedGenerator.from_checkpoint(state, run, config.trust), open_data(config)
    check_same_data(state, config, data)
    network = generator.network.to(find_device(config.device))
    return {"step": generator.step, **Evaluation(config, data, network).evaluate(count)}
