"""The optimizers of a run, and the updates of its two networks."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from wgan_fast import CriticStep, GeneratorStep, optim
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.augmentation import Augmentation, Augmented, check_operations
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.launch import process_group
from wgan_fast.train.networks.base import Models

BOOSTED = (25, 500)  # ``n_critic_boost`` holds for the first 25 steps, and at every 500th later


class Steps:
    """The updates that a run consists of, and the state they change beside the weights.

    Attributes:
        penalised: the update of the critic.
        unpenalised: the same without the penalty, for the batches that ``config.penalty_every`` leaves out.
        generator_step: the update of the generator.
        optimizers: of the generator and of the critic.
        scalers: their gradient scalers, enabled for float16 only.
        average: the exponential moving average of the generator's weights.
        augment: what real and generated images go through before the critic.
    """

    def __init__(self, config: TrainConfig, models: Models, fabric: Fabric) -> None:
        algorithm = ALGORITHMS[config.algorithm]
        clip_in_optimizer = config.clip if config.optimizer == "rmsprop" else None
        self._config, self._device = config, fabric.device
        self._rates = [config.generator_rate or config.learning_rate, config.critic_rate or config.learning_rate]
        self.optimizers = [
            self._optimizer(network, rate, clip)
            for network, rate, clip in zip(models, self._rates, (None, clip_in_optimizer), strict=True)
        ]
        self.augment: nn.Module = nn.Identity()
        generator = models.generator
        if config.augment is not None:
            self.augment = Augmentation(check_operations(config.augment), fabric.global_rank, fabric.world_size)
            generator = Augmented(generator, self.augment)
        scaled = config.precision == "16"
        self.scalers = [torch.amp.GradScaler(fabric.device.type, enabled=scaled) for _ in self.optimizers]
        generator_scaler, critic_scaler = (scaler if scaled else None for scaler in self.scalers)
        common: dict[str, Any] = {"backend": config.backend, "process_group": process_group(fabric)}

        def critic_step(penalty: Callable[..., Tensor] | None) -> CriticStep:
            return CriticStep(
                models.critic,
                self.optimizers[1],
                penalty=penalty,
                loss=algorithm.critic_loss,
                clip=config.clip if clip_in_optimizer is None else None,
                scaler=critic_scaler,
                **common,
            )

        weight = config.penalty_weight * config.penalty_every
        self.penalised = critic_step(algorithm.weighted_penalty(weight, fabric.global_rank, fabric.world_size))
        self.unpenalised = critic_step(None) if config.penalty_every > 1 else self.penalised
        self.generator_step = GeneratorStep(
            generator,
            models.critic,
            self.optimizers[0],
            loss=algorithm.generator_loss,
            scaler=generator_scaler,
            **common,
        )
        self.average = AveragedModel(models.generator, multi_avg_fn=ramped_average(config.average_decay))
        self.average.requires_grad_(False).eval()

    def critic_updates(self, step: int) -> int:
        """Updates of the critic before the generator's update number ``step``, from 0."""
        (first, every), config = BOOSTED, self._config
        boosted = config.n_critic_boost and (step < first or step % every == 0)
        return config.n_critic_boost if boosted else config.n_critic

    def critic_step(self, batch: int) -> CriticStep:
        """The update of the critic for batch number ``batch``, penalised at every ``penalty_every``-th."""
        return self.penalised if batch % self._config.penalty_every == 0 else self.unpenalised

    def _optimizer(self, network: nn.Module, rate: float, clip: float | None) -> torch.optim.Optimizer:
        config = self._config
        if config.optimizer == "rmsprop":
            return optim.RMSprop(network.parameters(), lr=self._on_device(rate), clip=clip)
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(
            network.parameters(), self._on_device(rate), betas, fused=True, capturable=self._device.type == "cuda"
        )

    def _on_device(self, rate: float) -> Any:
        """A learning rate; on a GPU a tensor, which a captured step reads anew at each replay."""
        return torch.tensor(rate, device=self._device) if self._device.type == "cuda" else rate

    def schedules(self, step: int) -> list[LambdaLR]:
        """The schedules of the learning rates of a run that is at ``step``: constant, or falling linearly to 0."""
        config = self._config
        for optimizer, rate in zip(self.optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:  # a checkpoint's rate is of its step, and lies on the CPU
                group["lr"], group["initial_lr"] = self._on_device(rate), rate
        return [
            LambdaLR(optimizer, lambda step: 1 - step / config.steps if config.decay else 1.0, step - 1)
            for optimizer in self.optimizers
        ]

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizers and scalers."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scalers": [scaler.state_dict() for scaler in self.scalers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from :meth:`state_dict`."""
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for scaler, values in zip(self.scalers, state["scalers"], strict=True):
            scaler.load_state_dict(values)


def ramped_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of :class:`torch.optim.swa_utils.AveragedModel`, with n averaged so far:

    ``average <- d average + (1 - d) weights``, where ``d = min(decay, n / (n + 10))``.

    The decay is small at first, so that a short run does not show its initial weights.
    """

    @torch.no_grad()
    def update(average: list[Tensor], weights: list[Tensor], averaged: Tensor) -> None:
        share = 1 - (averaged / (averaged + 10)).clamp(max=decay)  # a tensor: reading it would wait for the GPU
        for kept, new in zip(average, weights, strict=True):
            kept.lerp_(new, share.to(kept))

    return update
