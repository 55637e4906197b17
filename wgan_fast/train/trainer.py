"""The training loop. It knows nothing of the networks or of the data."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.budget import steps_within
from wgan_fast.train.build import check_memory, derive_seeds, describe_networks, make_networks, open_data
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.data.samples import Samples
from wgan_fast.train.data.sources import Batch, batches
from wgan_fast.train.launch import choose_threads, choose_workers, cpu_threads, launch, placement
from wgan_fast.train.run.checkpoint import check_resumable, load_checkpoint, load_resumable, save_best, save_checkpoint
from wgan_fast.train.run.folder import drop_replaced, run_folder
from wgan_fast.train.run.history import History, Row, check_state
from wgan_fast.train.run.randomness import all_random_states, own_random_states, random_states, set_random_states
from wgan_fast.train.run.signals import SaveRequest, Stopped
from wgan_fast.train.steps import Steps
from wgan_fast.train.view.evaluation import Evaluation, warning_of
from wgan_fast.train.view.metrics import MORE_IS_BETTER, Metrics
from wgan_fast.train.view.observers import due, load_logger, watch
from wgan_fast.train.view.progress import ProgressDisplay


class Trainer:
    """Trains a GAN, once, and leaves everything about it in a folder.

    Args:
        config: the settings. With ``resume`` they are those of the run that continues.
        samples: the data, where ``config.data`` only describes them; see :func:`wgan_fast.train.fit`.

    Attributes:
        generator: the generator that is trained.
        averaged_generator: the exponential moving average of its weights; samples are drawn from it.
        critic: the critic.
        step: updates of the generator so far.
        saved_step: that of the last checkpoint; None without one.
        best: the best value of ``config.best`` so far.
        folder: the run folder, once :meth:`run` has begun.

    The same configuration gives the same weights on the same machine, also where a run was stopped and resumed. Random
    states of Python, NumPy and PyTorch are left as they were.

    Raises:
        FileNotFoundError: there are no such data.
        MemoryError: the machine cannot hold a batch or the networks.
        ValueError: the data or a network is not usable; nothing has been written.
    """

    def __init__(self, config: TrainConfig, samples: Samples | None = None) -> None:
        if not isinstance(config, TrainConfig):
            raise ArgumentTypeError("config", f"expected a TrainConfig, got {type(config).__name__}")
        self.folder: Path | None = None
        self.restored = load_resumable(config)
        self.seeds = derive_seeds(config.seed)
        self.data = open_data(config, samples)
        self.identity = self.data.identity()
        self.fabric = launch(config)
        self.save_request = SaveRequest(self.fabric)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.networks = describe_networks(config, self.data)
        check_memory(config, self.networks)
        models = make_networks(self.networks, self.seeds.weights, self.fabric)
        self.generator, self.critic = models
        threads = choose_threads(config, self.critic, self.data.shape, self.fabric)
        self.threads, self.notes = threads[0], [placement(config, self.fabric, threads)]
        if config.budget is not None:
            config = self._fit_budget(config)
        self.config = config
        self.steps = Steps(config, models, self.fabric)
        self.averaged_generator = self.steps.average.module
        self.evaluation = Evaluation(config, self.data, self.averaged_generator, self.critic)
        self.make_logger = load_logger(config.logger)
        self.step = self.batches_taken = 0
        self.saved_step: int | None = None
        self.best: float | None = None
        # The steps read the labels from this tensor: a captured graph reads one address.
        local = config.batch_size // self.world
        conditional = self.networks["classes"] > 0
        self.labels = (torch.zeros(local, dtype=torch.int64, device=self.fabric.device),) if conditional else ()
        if self.restored is not None:
            check_resumable(self.restored, config, self.data)
            self.load_state_dict(self.restored)
        elif config.start_from is not None:
            self._load_networks(load_checkpoint(Path(config.start_from), "start_from"), "start_from")

    def run(self) -> Metrics:
        """Trains, evaluates, writes the run folder, and returns what its ``metrics.json`` holds.

        Raises:
            FileExistsError: the configured folder is not empty and may not be overwritten.
            FloatingPointError: a loss is no longer finite; the last checkpoint is from before.
            Stopped: a signal of :data:`.run.signals.SIGNALS` came; a checkpoint of the moment has been written.
            RuntimeError: it has run before.
            ValueError: a batch or a network of the user's is not usable.
        """
        if self.folder is not None:
            raise RuntimeError("a Trainer runs once; make another one")
        config, start = self.config, time.perf_counter()
        estimate, state = ALGORITHMS[config.algorithm].estimate, self.restored["history"] if self.restored else None
        scaled = any(scaler.is_enabled() for scaler in self.steps.scalers)
        with (
            run_folder(config, self.fabric) as self.folder,
            History(self.folder, self.step, estimate, state, written=self.rank == 0, scaled=scaled) as self.history,
            torch.enable_grad(),
            cpu_threads(self.threads),
            own_random_states(self.seeds.training, self.fabric.device),
            self.save_request.listening(),
            ProgressDisplay(config.steps, self.step, config.batch_size, visible=self.rank == 0) as display,
            watch(self, display) as observers,
            closing(self._batches()) as real_batches,
        ):
            if self.restored is not None:
                set_random_states(self._random_states(self.restored), self.fabric.device)
            for note in self.notes:
                display.say(note)
            schedules = self.steps.schedules(self.step)
            while self.step < config.steps:
                for _ in range(self.steps.critic_updates(self.step)):
                    real = self.update_critic(next(real_batches))
                self.update_generator(real)
                for schedule in schedules:
                    schedule.step()
                row = self._end_row(real, display) if self._ends_row() else None
                if due(self.step, config.checkpoint_every, config.steps):
                    self.save_checkpoint()
                for observe in observers:  # after the checkpoint, which a fault in them must not cost
                    observe(self.step, row)
                if self.save_request.received():
                    self.save_checkpoint()
                if self.save_request.signal is not None:
                    raise Stopped(self.save_request.signal)
        found = {"seconds": time.perf_counter() - start, "steps": self.step, "seed": config.seed}
        metrics = self.evaluation.finish(self.folder, self.history.rows, found) if self.rank == 0 else {}
        self.fabric.barrier()
        return metrics

    def update_critic(self, batch: Batch) -> Tensor:
        """One update of the critic; returns the real samples that it saw, on the device."""
        step = self.steps.critic_step(self.batches_taken)
        self.batches_taken += 1
        for held in self.labels:
            assert batch.labels is not None
            held.copy_(batch.labels, non_blocking=True)
        real: Tensor = self.steps.augment(batch.samples.to(self.fabric.device, non_blocking=True))
        with self.fabric.autocast():
            output = step(real, self.fakes, *self.labels)
        self.history.add(output, step.gradient_norm if step.penalised else None)
        return real

    def update_generator(self, real: Tensor) -> None:
        """One update of the generator and of its average; a paired loss compares with ``real``."""
        compared = {"real": real} if ALGORITHMS[self.config.algorithm].paired else {}
        with self.fabric.autocast():
            self.history.add_generator(self.steps.generator_step(self.latents, *self.labels, **compared))
        self.steps.average.update_parameters(self.generator)
        self.step += 1

    def latents(self) -> Tensor:
        """This process's share of the latent vectors of a batch, standard normal."""
        size = (self.config.batch_size, self.config.latent_dimension)
        return torch.randn(size, device=self.fabric.device)[self.rank :: self.world]

    def fakes(self) -> Tensor:
        """A batch of generated samples, augmented as real ones are."""
        samples: Tensor = self.steps.augment(self.generator(self.latents(), *self.labels))
        return samples

    def save_checkpoint(self) -> None:
        """Writes everything that the rest of the run depends on, unless a loss is not finite."""
        assert self.folder is not None
        self.history.check_finite()
        save_checkpoint(self.fabric, self.folder, self.state_dict() | {"random": all_random_states(self.fabric)})
        self.save_request.saved()
        self.saved_step = self.step
        if self.rank == 0:
            drop_replaced(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, except the random states."""
        return {
            "generator": self.averaged_generator.state_dict(),
            "critic": self.critic.state_dict(),
            "trained_generator": self.generator.state_dict(),
            **self.steps.state_dict(),
            "step": self.step,
            "batches": self.batches_taken,
            "history": self.history.state_dict(),
            "best": self.best,
            "networks": self.networks,
            "codec": self.data.decoder.to_dict(),
            "identity": self.identity,
            "config": self.config.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from :meth:`state_dict`; the history is read once the folder is open."""
        self._load_networks(state, "resume")
        self.best = state.get("best")
        self.step, self.batches_taken = state["step"], state["batches"]
        self.saved_step = self.step

    def _load_networks(self, state: dict[str, Any], argument: str) -> None:
        """Takes the weights of a checkpoint; to resume, the optimizers' state too."""
        try:
            self.averaged_generator.load_state_dict(state["generator"])
            self.critic.load_state_dict(state["critic"])
            self.generator.load_state_dict(state["trained_generator"])
            if argument == "resume":
                self.steps.load_state_dict(state)
                self.steps.average.n_averaged.fill_(state["step"])
                check_state(state["history"])
                with own_random_states(0, self.fabric.device):  # on trial
                    set_random_states(self._random_states(state), self.fabric.device)
        except Exception as error:  # a file may hold anything
            reason = str(error).splitlines()[-1].strip()  # a network of the user's may have changed
            raise ArgumentValueError(argument, f"the networks are not the checkpoint's: {reason}") from error

    def keep_if_best(self, found: Metrics) -> None:
        """Writes ``best.pt`` if these metrics are the best so far. In the first process only, without collectives."""
        name = self.config.best
        value = found.get(name) if name is not None else None
        if value is None or (
            self.best is not None and (value <= self.best if name in MORE_IS_BETTER else value >= self.best)
        ):
            return
        assert self.folder is not None
        self.best = value
        save_best(self.folder, self.state_dict() | {"random": [random_states(self.fabric.device)]})

    def _random_states(self, state: dict[str, Any]) -> dict[str, Any]:
        """This process's; with another number of processes, those of the first, which draw for the whole batch."""
        states: list[dict[str, Any]] = state["random"]
        return states[self.rank if len(states) == self.world else 0]

    def _fit_budget(self, config: TrainConfig) -> TrainConfig:
        """The settings with a number of steps in place of the time budget; a run that goes on keeps its number."""
        if self.restored is not None:
            return replace(config, budget=None)
        steps = steps_within(config, self.data, self.networks, self.seeds, self.fabric, self.threads)
        self.notes.append(f"{steps:,} of {config.steps:,} steps, for a budget of {config.budget} (--budget, --steps)")
        return replace(config, steps=steps, budget=None)

    def _ends_row(self) -> bool:
        """Whether a row of the history is complete; one of nothing but skipped updates goes on to the next."""
        last = self.step == self.config.steps
        return due(self.step, self.config.log_every, self.config.steps) and (last or not self.history.is_searching())

    def _end_row(self, real: Tensor, display: ProgressDisplay) -> Row:
        found = self.evaluation.of_weights()
        if not self.steps.penalised.penalised:
            found["gradient_norm"] = self.evaluation.gradient_norm(real, self.labels)
        row = self.history.end_row(self.step, **found, samples_per_second=display.speed(self.step))
        with warning_of(f"step {self.step}: metrics.jsonl", display.say):
            self.history.write()
        return row

    def _batches(self) -> Generator[Batch, None, None]:
        config, on_gpu = self.config, self.fabric.device.type == "cuda"
        start, seed = self.batches_taken, self.seeds.training
        workers = choose_workers(config, self.data.decoded, self.fabric)
        share: dict[str, Any] = {"rank": self.rank, "world": self.world}
        return batches(self.data, config.batch_size, seed, start=start, workers=workers, pin_memory=on_gpu, **share)
