"""The training loop, thin enough to read in one sitting. It knows nothing of the networks or of the data."""

import copy
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor, nn
from torch import distributed as dist

from wgan_fast import CriticStep, GeneratorStep, optim
from wgan_fast._checks import ArgumentOSError, ArgumentTypeError, ArgumentValueError
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.config import FIXED, TrainConfig
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.sources import Batch, batches, make_data
from wgan_fast.train.generator import build_networks
from wgan_fast.train.launch import StopRequest, cpu_threads, launch, place, process_group
from wgan_fast.train.networks.named import check_models
from wgan_fast.train.run.atomic import whole_file
from wgan_fast.train.run.checkpoint import load_checkpoint, save_checkpoint
from wgan_fast.train.run.folder import claim_run_folder
from wgan_fast.train.run.history import History
from wgan_fast.train.run.randomness import own_random_states, random_states, set_random_states
from wgan_fast.train.view import plots
from wgan_fast.train.view.alarms import Alarms
from wgan_fast.train.view.evaluation import Evaluation
from wgan_fast.train.view.metrics import Metrics
from wgan_fast.train.view.progress import ProgressDisplay

#: Samples of an evaluation during training, which should take little time.
WATCHED_SAMPLES = 500
BOOSTED = (25, 500)  # steps at the beginning, and how often later, that ``n_critic_boost`` is for


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal ended the run, which has left a checkpoint; ``signal`` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Trainer:
    """Trains a GAN, once, and leaves everything about it in a folder.

    Args:
        config: the settings. With ``resume`` they are those of the run that goes on.

    Attributes:
        generator: the generator that is trained.
        averaged_generator: the exponential moving average of its weights; samples are drawn from it.
        critic: the critic.
        step: updates of the generator so far.
        folder: the run folder, once :meth:`run` has begun.

    The same configuration gives the same weights on the same machine, also where a run was stopped and goes on. Random
    states of Python, NumPy and PyTorch are left as they were.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: the data or a network is not as it should be; nothing has been written.
    """

    def __init__(self, config: TrainConfig) -> None:
        if not isinstance(config, TrainConfig):
            raise ArgumentTypeError("config", f"expected a TrainConfig, got {type(config).__name__}")
        self.config = config
        self.folder: Path | None = None
        self.restored = load_checkpoint(Path(config.out or "")) if config.resume else None
        weights_seed, self.training_seed, evaluation_seed = (
            np.random.SeedSequence(config.seed).generate_state(3).tolist()
        )
        self.data = make_data(config.data, seed=config.seed, size=config.size, colour=config.colour)
        if config.conditional and not self.data.classes:
            raise ArgumentValueError("conditional", f"expected data with labels, and {config.data} have none")
        self.fabric = fabric = launch(config)
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.classes = len(self.data.classes) if config.conditional else 0
        self.networks = {
            "name": config.model or ("dcgan" if self.data.decoder.kind == "images" else "mlp"),
            "shape": list(self.data.shape),
            **{name: getattr(config, name) for name in ("latent_dimension", "width", "depth", "norm")},
            **{name: getattr(config, name) for name in ("generator", "critic")},
            "classes": self.classes,
        }
        with own_random_states(weights_seed, torch.device("cpu")):
            models = build_networks(self.networks)
        self.generator, self.critic = (place(fabric, network) for network in models)
        check_models(models, self.data.shape, config.latent_dimension, self.classes)
        self.averaged_generator = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.evaluation = Evaluation(config, self.data, self.averaged_generator, self.critic, evaluation_seed)
        self.step = self.batches_taken = 0
        # The steps read the labels from here: a captured graph knows one place.
        local = config.batch_size // self.world
        self.labels = (torch.zeros(local, dtype=torch.int64, device=fabric.device),) if self.classes else ()
        self._make_steps()
        if self.restored is not None:
            self._restore(self.restored)

    def _make_steps(self) -> None:
        config, algorithm = self.config, ALGORITHMS[self.config.algorithm]
        clip_in_pass = config.clip if config.optimizer == "rmsprop" else None
        self.optimizers = [self._optimizer(self.generator, None), self._optimizer(self.critic, clip_in_pass)]
        scaled = config.precision == "16"
        self.scalers = [torch.amp.GradScaler(self.fabric.device.type, enabled=scaled) for _ in self.optimizers]
        common: dict[str, Any] = {"backend": config.backend, "process_group": process_group(self.fabric)}
        generator_scaler, critic_scaler = (scaler if scaler.is_enabled() else None for scaler in self.scalers)
        weight = config.penalty_weight * config.penalty_every

        def critic_step(penalty: Any) -> CriticStep:
            return CriticStep(
                self.critic,
                self.optimizers[1],
                penalty=penalty,
                loss=algorithm.critic_loss,
                clip=config.clip if clip_in_pass is None else None,
                scaler=critic_scaler,
                **common,
            )

        self.critic_step = critic_step(algorithm.weighted_penalty(weight, self.rank, self.world))
        self.unpenalised_step = critic_step(None) if config.penalty_every > 1 else self.critic_step
        self.generator_step = GeneratorStep(
            self.generator,
            self.critic,
            self.optimizers[0],
            loss=algorithm.generator_loss,
            scaler=generator_scaler,
            **common,
        )

    def _optimizer(self, network: nn.Module, clip: float | None) -> torch.optim.Optimizer:
        config, on_gpu = self.config, self.fabric.device.type == "cuda"
        rate: Any = torch.tensor(config.learning_rate, device=self.fabric.device) if on_gpu else config.learning_rate
        if config.optimizer == "rmsprop":
            return optim.RMSprop(network.parameters(), lr=rate, clip=clip)
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(network.parameters(), rate, betas, fused=True, capturable=on_gpu)

    def run(self) -> Metrics:
        """Trains, evaluates, writes the run folder, and returns what its ``metrics.json`` holds.

        Raises:
            FileExistsError: the configured folder is not empty and may not be overwritten.
            FloatingPointError: a loss is no longer finite; the last checkpoint is from before.
            Stopped: SIGINT or SIGTERM came; a checkpoint of the moment has been written.
            RuntimeError: it has run before.
            ValueError: the run that should go on had another number of processes; a batch or a network of one's own is
                not as it should be.
        """
        if self.folder is not None:
            raise RuntimeError("a Trainer runs once; make another one")
        if self.restored is not None and len(self.restored["random"]) != self.world:
            raise ArgumentValueError(
                "resume", f"the run had {len(self.restored['random'])} processes, now there are {self.world}"
            )
        config, start = self.config, time.perf_counter()
        self.folder = self._claim_folder()
        stop, alarms = StopRequest(self.fabric), Alarms(config)
        with (
            torch.enable_grad(),
            cpu_threads(config.threads),
            own_random_states(self.training_seed, self.fabric.device),
            stop.listening(),
            self._open_history() as self.history,
            ProgressDisplay(config.steps, self.step, config.batch_size, visible=self.rank == 0) as display,
        ):
            if self.restored is not None:
                set_random_states(self.restored["random"][self.rank], self.fabric.device)
            real_batches = self._batches()
            while self.step < config.steps:
                self.set_learning_rate()
                for _ in range(self.critic_updates()):
                    real = self.update_critic(next(real_batches))
                with self.fabric.autocast():
                    self.history.add_generator(self.generator_step(self.latents, *self.labels))
                self.step += 1
                self.update_average()
                self.look(real, display, alarms)
                if stop.heard():
                    self.save_checkpoint()
                    raise Stopped(stop.signal or 0)
        return self.finish(time.perf_counter() - start)

    def critic_updates(self) -> int:
        """How many the step has."""
        first, every = BOOSTED
        boosted = self.config.n_critic_boost and (self.step < first or self.step % every == 0)
        return self.config.n_critic_boost if boosted else self.config.n_critic

    def update_critic(self, batch: Batch) -> Tensor:
        """The penalised step at every ``penalty_every``-th batch, else the unpenalised; returns the real samples."""
        step = self.critic_step if self.batches_taken % self.config.penalty_every == 0 else self.unpenalised_step
        self.batches_taken += 1
        for held in self.labels:  # where the steps read them
            assert batch.labels is not None
            held.copy_(batch.labels, non_blocking=True)
        real = batch.samples.to(self.fabric.device, non_blocking=True)
        with self.fabric.autocast():
            self.history.add(step(real, self.fakes, *self.labels))
        return real

    def latents(self) -> Tensor:
        """This process's share of the latent vectors of a batch, standard normal."""
        size = (self.config.batch_size, self.config.latent_dimension)
        return torch.randn(size, device=self.fabric.device)[self.rank :: self.world]

    def fakes(self) -> Tensor:
        """A batch of generated samples."""
        return self.generator(self.latents(), *self.labels)

    @torch.no_grad()
    def update_average(self) -> None:
        """``average <- decay * average + (1 - decay) * generator`` for the parameters; buffers are copied."""
        # The average of the first steps is short, so that a short run does not show its initial weights.
        decay = min(self.config.average_decay, self.step / (self.step + 10))
        for kept, new in zip(self.averaged_generator.parameters(), self.generator.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
        for kept_buffer, new_buffer in zip(self.averaged_generator.buffers(), self.generator.buffers(), strict=True):
            kept_buffer.copy_(new_buffer)

    def set_learning_rate(self) -> None:
        """For the step that comes."""
        config = self.config
        rate = config.learning_rate * (1 - self.step / config.steps if config.decay else 1)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def look(self, real: Tensor, display: ProgressDisplay, alarms: Alarms) -> None:
        """After a step: rows of the history, alarms, pictures, evaluations and checkpoints, where they are due."""
        config, step = self.config, self.step

        def due(every: int) -> bool:
            return step % every == 0 or step == config.steps

        if due(config.log_every):
            row = self.history.end_row(
                step, **self.evaluation.of_critic(real, self.labels), samples_per_second=display.speed(step)
            )
            self.logger.log_metrics(row, step)
            for message in alarms.new(self.history.rows):
                display.say(f"step {step}: {message}")
        if due(config.evaluate_every) and step < config.steps and self.rank == 0:
            metrics = {
                name: value for name, value in self.evaluation.evaluate(WATCHED_SAMPLES).items() if value is not None
            }
            self.logger.log_metrics(metrics, step)
            display.say(f"step {step}: {', '.join(f'{name} {value:.4g}' for name, value in metrics.items())}")
        if due(config.sample_every) and self.rank == 0:
            assert self.folder is not None
            self.evaluation.draw(self.folder / "samples" / f"{step:06d}.png")
        if due(config.checkpoint_every):
            self.save_checkpoint()
        display.update(step, self.history)

    def finish(self, seconds: float) -> Metrics:
        """Evaluates, and writes the figures and, last, ``metrics.json``, which says that the run is finished."""
        assert self.folder is not None
        metrics: Metrics = {}
        if self.rank == 0:
            metrics = self.evaluation.evaluate() | {"seconds": seconds, "steps": self.step, "seed": self.config.seed}
            self.evaluation.draw(self.folder / "samples.png", metrics)
            plots.plot_curve(self.folder / "curve.png", self.history.rows)
            self.logger.finalize("success")
            with whole_file(self.folder / "metrics.json") as unfinished:
                unfinished.write_text(json.dumps(metrics, indent=2) + "\n")
        self.fabric.barrier()
        return metrics

    def save_checkpoint(self) -> None:
        """Everything that the rest of the run depends on, unless a loss is not finite."""
        assert self.folder is not None
        if self.history.state_dict()["critic"]:
            self.history.means()
        states: list[Any] = [random_states(self.fabric.device)]
        if self.world > 1:
            mine, states = states[0], [None] * self.world
            dist.all_gather_object(states, mine)
        state = {
            "generator": self.averaged_generator.state_dict(),
            "critic": self.critic.state_dict(),
            "trained_generator": self.generator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scalers": [scaler.state_dict() for scaler in self.scalers],
            "step": self.step,
            "batches": self.batches_taken,
            "random": states,
            "history": self.history.state_dict(),
            "networks": self.networks,
            "codec": self.data.decoder.to_dict(),
            "config": self.config.to_dict(),
        }
        save_checkpoint(self.fabric, self.folder, state)

    def _restore(self, state: dict[str, Any]) -> None:
        for name in FIXED:  # with another seed it would train on held-out samples
            before, now = state["config"][name], getattr(self.config, name)
            if now != before:
                raise ArgumentValueError(name, f"a run that goes on keeps its {name}, {before}; got {now}")
        if self.config.steps < state["step"]:
            raise ArgumentValueError("steps", f"the run is at step {state['step']} already; got {self.config.steps}")
        if not self.data.decoder.resembles(Decoder.from_dict(state["codec"])):
            raise ArgumentValueError(
                "data", f"{self.config.data} has other columns, other units or other classes than before"
            )
        try:
            self.averaged_generator.load_state_dict(state["generator"])
            self.critic.load_state_dict(state["critic"])
            self.generator.load_state_dict(state["trained_generator"])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            for scaler, values in zip(self.scalers, state["scalers"], strict=True):
                scaler.load_state_dict(values)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()  # a network of the user's may have changed
            raise ArgumentValueError("resume", f"the networks are not the checkpoint's: {reason}") from error
        self.step, self.batches_taken = state["step"], state["batches"]

    def _claim_folder(self) -> Path:
        folder: Path | OSError = Path()
        if self.rank == 0:
            try:
                folder = claim_run_folder(self.config)
                with whole_file(folder / "config.yaml") as unfinished:
                    unfinished.write_text(self.config.to_yaml())
            except ArgumentOSError as error:
                folder = error
            except OSError as error:
                folder = ArgumentOSError("out", f"{error.filename} cannot be written: {error.strerror}")
        folder = self.fabric.broadcast(folder)
        if isinstance(folder, OSError):  # in every process, so that none waits for another
            raise folder
        self.logger = TensorBoardLogger(folder, name="tensorboard", version="")
        return folder

    def _open_history(self) -> History:
        assert self.folder is not None
        file = self.folder / "metrics.jsonl" if self.rank == 0 else Path(os.devnull)
        history = History(file, self.step, ALGORITHMS[self.config.algorithm].estimate)
        if self.restored is not None:
            history.load_state_dict(self.restored["history"])
        return history

    def _batches(self) -> Iterator[Batch]:
        return batches(
            self.data,
            self.config.batch_size,
            self.training_seed,
            start=self.batches_taken,
            rank=self.rank,
            world=self.world,
            workers=self.config.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
