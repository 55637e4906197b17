"""The training loop, thin enough to read in one sitting. It knows nothing of the networks or of the data."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_fast import CriticStep, GeneratorStep, gradient_penalty
from wgan_fast.train import plots
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.data import make_data
from wgan_fast.train.metrics import evaluate
from wgan_fast.train.models import make_models
from wgan_fast.train.progress import ProgressDisplay
from wgan_fast.train.run_folder import History, claim_run_folder, save_checkpoint

#: Generated and real samples that the evaluation compares; the field's number for counting modes.
EVALUATION_SAMPLES = 2500


class Trainer:
    """Trains a GAN, once, and leaves everything about it in a folder.

    Args:
        config: the settings.

    Attributes:
        generator: the generator that is trained.
        averaged_generator: the exponential moving average of its weights; samples are drawn from it.
        critic: the critic.
        folder: the run folder, once :meth:`run` has begun.

    The same configuration gives the same weights on the same machine. PyTorch's global random state is left as it was.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder: Path | None = None
        seeds = np.random.SeedSequence(config.seed).generate_state(3).tolist()
        weights_seed, training_seed, self.evaluation_seed = seeds
        device = torch.device(config.device)
        self.random = torch.Generator(device).manual_seed(training_seed)
        self.data = make_data(config.data, device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(weights_seed)
            models = make_models(config.model, self.data.dimension, config.latent_dimension, config.width, config.depth)
        self.generator = models.generator.to(device)
        self.critic = models.critic.to(device)
        self.averaged_generator = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.optimizers = [
            torch.optim.Adam(
                network.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
            )
            for network in (self.generator, self.critic)
        ]
        generator_optimizer, critic_optimizer = self.optimizers
        penalty = partial(gradient_penalty, weight=config.penalty_weight, generator=self.random)
        self.critic_step = CriticStep(self.critic, critic_optimizer, penalty=penalty, backend="eager")
        self.generator_step = GeneratorStep(self.generator, self.critic, generator_optimizer, backend="eager")

    def run(self) -> dict[str, Any]:
        """Trains, evaluates, writes the run folder, and returns what its ``metrics.json`` holds.

        Raises:
            FileExistsError: the configured folder is not empty and may not be overwritten.
            FloatingPointError: the critic's loss is no longer finite.
            KeyboardInterrupt: passed on, after the checkpoint of the moment has been written.
            RuntimeError: it has run before.
        """
        if self.folder is not None:
            raise RuntimeError("a Trainer runs once; make another one")
        config = self.config
        self.folder = folder = claim_run_folder(config)
        (folder / "config.yaml").write_text(config.to_yaml())
        batches = self.data.batches(config.batch_size, self.random)
        history = History(folder / "metrics.jsonl", config.log_every, config.steps)
        try:
            with torch.enable_grad(), cpu_threads(config.threads), history, ProgressDisplay(config.steps) as display:
                for step in range(1, config.steps + 1):
                    for _ in range(config.n_critic):
                        history.add(self.critic_step(next(batches), self.fakes))
                    self.generator_step(self.latents)
                    self.update_average(step)
                    self.decay_learning_rate(step)
                    history.end_step(step)
                    display.update(step, history)
        except KeyboardInterrupt:
            save_checkpoint(folder / "checkpoint.pt", generator=self.averaged_generator, critic=self.critic)
            raise
        metrics = self.evaluate() | {"seconds": display.seconds, "steps": config.steps, "seed": config.seed}
        self.save(folder, history.rows, metrics)
        return metrics

    def fakes(self) -> Tensor:
        """A batch of generated samples."""
        return self.generator(self.latents())

    def latents(self) -> Tensor:
        """Latent vectors for a batch, standard normal."""
        return self.generator.latents(self.config.batch_size, self.random)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """``average <- decay * average + (1 - decay) * generator`` for the parameters; buffers are copied."""
        # The average of the first steps is short, so that a short run does not show its initial weights.
        decay = min(self.config.average_decay, step / (step + 10))
        for kept, new in zip(self.averaged_generator.parameters(), self.generator.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
        for kept_buffer, new_buffer in zip(self.averaged_generator.buffers(), self.generator.buffers(), strict=True):
            kept_buffer.copy_(new_buffer)

    def decay_learning_rate(self, step: int) -> None:
        """Sets the rate for the step after ``step``."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * (1 - step / self.config.steps)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Judges the averaged generator on held-out samples; see :func:`wgan_fast.train.metrics.evaluate`."""
        generated, real, other_real = self.evaluation_samples()
        return evaluate(generated, real, other_real, self.data)

    @torch.no_grad()
    def evaluation_samples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Generated samples and two independent sets of real ones that training never saw; the same at every call."""
        random = torch.Generator(self.random.device).manual_seed(self.evaluation_seed)
        generated = self.averaged_generator.sample(EVALUATION_SAMPLES, random)
        return generated, self.data.sample(EVALUATION_SAMPLES, random), self.data.sample(EVALUATION_SAMPLES, random)

    def save(self, folder: Path, rows: list[dict[str, float]], metrics: dict[str, Any]) -> None:
        """Writes the checkpoint, the figures and, last, ``metrics.json``, which says that the run is finished."""
        generated, real, _ = self.evaluation_samples()
        save_checkpoint(folder / "checkpoint.pt", generator=self.averaged_generator, critic=self.critic)
        plots.plot_samples(folder / "samples.png", generated, real, self.critic, metrics)
        plots.plot_curve(folder / "curve.png", rows)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Lets an operation of PyTorch use ``count`` CPU threads, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
