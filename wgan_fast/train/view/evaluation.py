"""How a run looks at its networks, without moving anything: samples, distances, pictures, the critic's slope."""

from pathlib import Path

import torch
from torch import Tensor, nn

from wgan_fast import interpolate
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.data.sources import Data
from wgan_fast.train.generator import cyclic_labels, generate, seeded_latents
from wgan_fast.train.networks.base import evaluating
from wgan_fast.train.networks.named import load_factory
from wgan_fast.train.view import plots
from wgan_fast.train.view.metrics import Metrics, check_features, evaluate, feature_distances

#: Generated and real samples that the last evaluation compares; the field's number for counting modes.
SAMPLES = 2500


class Evaluation:
    """Looks at a generator and a critic, always from the same latent vectors and held-out samples.

    Args:
        config: the settings of the run.
        data: what it trains on.
        generator: the one to judge.
        critic: the critic.
        seed: of latent vectors and held-out samples.

    Raises:
        ValueError: ``config.features`` names no function that makes a network from samples to features, or too few
            samples are held out for it.
    """

    def __init__(self, config: TrainConfig, data: Data, generator: nn.Module, critic: nn.Module, seed: int) -> None:
        self._config, self._data, self._seed = config, data, seed
        self._generator, self._critic = generator, critic
        self._classes = len(data.classes) if config.conditional else 0
        self._features = load_factory(config.features, "features")() if config.features else None
        if self._features is not None:  # at once, not after hours
            check_features(self._features, self._real(SAMPLES)[0])

    @torch.no_grad()
    def evaluate(self, count: int | None = None) -> Metrics:
        """Judges the generator on held-out samples, 2,500 by default; see :func:`.metrics.evaluate`."""
        real, other_real = self._real(count or SAMPLES)
        generated = self.generated(len(real))
        metrics = evaluate(generated, real, other_real, self._data)
        return metrics | (feature_distances(self._features, generated, real) if self._features is not None else {})

    def _real(self, count: int) -> tuple[Tensor, Tensor]:
        """Two sets of held-out samples, of at most ``count``; the same one twice where there is only one sample."""
        held_out = self._data.held_out(2 * count, self._seed).samples
        real, other_real = held_out.chunk(2) if len(held_out) > 1 else (held_out, held_out)
        return real, other_real

    def generated(self, count: int) -> Tensor:
        """Samples of the generator, with each label in turn."""
        latents = seeded_latents(count, self._config.latent_dimension, self._seed)
        device = next(self._generator.parameters()).device
        return generate(self._generator, latents, cyclic_labels(count, self._classes), device)

    def draw(self, path: Path, metrics: Metrics | None = None) -> None:
        """Writes a picture of generated samples."""
        path.parent.mkdir(exist_ok=True)
        real = self._data.held_out(SAMPLES, self._seed).samples
        with evaluating(self._critic):
            critic = None if self._classes else self._critic
            plots.plot(path, self.generated(SAMPLES), real, self._data.decoder, critic, metrics)

    def of_critic(self, real: Tensor, labels: tuple[Tensor, ...]) -> dict[str, float]:
        """The mean norm of the critic's gradient between a batch of real and as many generated samples, and the share
        of its weights that lie at the bound of clipping.
        """
        random = torch.Generator(real.device).manual_seed(self._seed)
        latents = torch.randn(len(real), self._config.latent_dimension, generator=random, device=real.device)
        with evaluating(self._critic):
            with torch.no_grad():
                points = interpolate(real, self._generator(latents, *labels), generator=random).requires_grad_()
            (gradient,) = torch.autograd.grad(self._critic(points, *labels).sum(), points)
        found = {"gradient_norm": gradient.flatten(1).norm(dim=1).mean().item()}
        if self._config.clip is not None:
            weights = torch.cat([parameter.detach().flatten() for parameter in self._critic.parameters()])
            found["clip_saturation"] = (weights.abs() >= self._config.clip).float().mean().item()
        return found
