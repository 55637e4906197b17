"""A trained generator, read from a run without its data: samples, interpolations, and a file that needs no library."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgan_fast._checks import ArgumentError, ArgumentTypeError, ArgumentValueError, check_integer
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.networks.base import evaluating, latents
from wgan_fast.train.networks.named import Models, load_factory, make_models
from wgan_fast.train.run.atomic import whole_file
from wgan_fast.train.run.checkpoint import load_checkpoint
from wgan_fast.train.run.contents import check_trust

BATCH = 500  # samples that are generated at once
UNITS = "units.json"  #: in an exported file, what its numbers mean


def build_networks(spec: dict[str, Any]) -> Models:
    """The two networks of what a checkpoint calls ``networks``: the arguments of :func:`make_models`."""
    factories = {
        role: load_factory(spec[role], role) if spec[role] is not None else None for role in ("generator", "critic")
    }
    return make_models(**{**spec, "shape": tuple(spec["shape"]), **factories})


@contextmanager
def naming_damage(source: Path | str) -> Iterator[None]:
    """Turns any error into one that names the checkpoint: a file may hold anything."""
    try:
        yield
    except ArgumentError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise ArgumentValueError(
            "run", f"the checkpoint of {source} is not as a run writes it: {type(error).__name__}: {reason}"
        ) from error


def _restore(spec: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The generator of a checkpoint. The library's own take the tensors that were read, so that no size which the file
    names is ever allocated.
    """
    named = spec["generator"] is None
    if named and (spec["depth"] or 0) > len(weights):
        raise ValueError(f"{spec['depth']} layers, of {len(weights)} weights")
    with torch.random.fork_rng(devices=[]):
        if named:
            with torch.device("meta"):
                network = build_networks(spec | {"critic": None}).generator
        else:
            make = load_factory(spec["generator"], "generator")
            arguments = {name: spec[name] for name in ("latent_dimension", "classes")}
            network = make(shape=tuple(spec["shape"]), **arguments)
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    if named and any(weights[name].dtype != kind for name, kind in kinds.items() if name in weights):
        raise ValueError("weights of another type")
    try:
        network.load_state_dict(weights, assign=named)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArgumentValueError(
            "run", f"{spec['generator'] or spec['name']} makes another network than was trained: {reason}"
        ) from error
    return network.requires_grad_(False).eval()


@torch.no_grad()
def generate(
    generator: nn.Module, vectors: Tensor, labels: Tensor | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Samples (B, ...) on the CPU from latent vectors (B, latent_dimension), and labels (B,), in evaluation mode."""
    inputs = (vectors,) if labels is None else (vectors, labels)
    batches = zip(*(tensor.split(BATCH) for tensor in inputs), strict=True)
    with evaluating(generator):
        return torch.cat([generator(*(tensor.to(device) for tensor in batch)).float().cpu() for batch in batches])


def seeded_latents(count: int, latent_dimension: int, seed: int) -> Tensor:
    """Standard normal latent vectors (count, latent_dimension); the same on every device."""
    return latents(count, latent_dimension, torch.Generator().manual_seed(seed))


def cyclic_labels(count: int, classes: int) -> Tensor | None:
    """The labels 0, 1, ..., 0, 1, ...; None without classes."""
    return torch.arange(count, device="cpu") % classes if classes else None


@dataclass
class TrainedGenerator:
    """A generator, and the way back to the user's units.

    Attributes:
        network: in evaluation mode, on the CPU.
        latent_dimension: the size of its input.
        classes: how many labels it takes; 0 is none.
        decoder: of the data that it imitates.
        step: how long it was trained.
        source: the run folder or checkpoint that it was read from.
    """

    network: nn.Module
    latent_dimension: int
    classes: int
    decoder: Decoder
    step: int
    source: Path

    @classmethod
    def load(cls, path: Path | str, *, trust: bool = False) -> "TrainedGenerator":
        """From a run folder or a checkpoint.

        Args:
            path: the folder or the file.
            trust: import networks that the checkpoint names, which runs their code.

        Raises:
            TypeError: ``path`` is not a path.
            ValueError: there is no run, it is damaged, it names code and ``trust`` is False, or the user's function
                makes another network than was trained.
        """
        if not isinstance(path, str | Path):
            raise ArgumentTypeError("run", f"expected a path, got {path!r}")
        return cls.from_checkpoint(load_checkpoint(Path(path), "run"), path, trust)

    @classmethod
    def from_checkpoint(cls, state: dict[str, Any], source: Path | str, trust: bool) -> "TrainedGenerator":
        """From what :func:`.run.checkpoint.load_checkpoint` returns of ``source``.

        Raises:
            ValueError: the user's function makes another network than was trained, or what it holds is not as a run
                writes it.
        """
        spec = state["networks"]
        check_trust({"generator": spec.get("generator")}, source, trust)
        with naming_damage(source):
            network = _restore(spec, state["generator"])
            decoder, size, classes = Decoder.from_dict(state["codec"]), spec["latent_dimension"], spec["classes"]
            if decoder.counts and classes not in (0, len(decoder.counts)):
                raise ValueError(f"{classes} labels, of {len(decoder.counts)} counts")
            decoder.restore(
                generate(network, torch.zeros(2, size, device="cpu"), cyclic_labels(2, classes))
            )  # on trial
            return cls(network, size, classes, decoder, state["step"], Path(source))

    def sample(self, count: int, *, seed: int = 0, label: Any = None) -> Any:
        """Samples in the user's units and type.

        Args:
            count: how many.
            seed: of the latent vectors.
            label: of all of them, as the data name it. None takes each in turn; for a table, it draws them as often as
                the data have them.

        Returns:
            A tensor (count, ...) if the data were one, a pandas DataFrame if they were a table, else an array. A
            generator with labels returns ``(samples, labels)``; a DataFrame holds them itself.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: one is too small, or there is no such label.
        """
        return self.decoder.give(*self.draw(count, seed=seed, label=label))

    def interpolations(self, rows: int, steps: int, *, seed: int = 0, label: Any = None) -> Any:
        r"""Samples (rows * steps, ...), each row from one latent vector to another on the great circle between them.

        .. math:: \frac{\sin((1 - t) \omega)}{\sin \omega} z_0 + \frac{\sin(t \omega)}{\sin \omega} z_1

        Args, returns and raises as :meth:`sample`, for ``rows * steps`` samples; ``steps`` is at least 2.

        Source: White, "Sampling Generative Networks", 2016, section 2.1.
        """
        return self.decoder.give(*self.draw_between(rows, steps, seed=seed, label=label))

    def draw(self, count: int, *, seed: int = 0, label: Any = None) -> tuple[Tensor, Tensor | None]:
        """As :meth:`sample`, but as the network makes them, with labels as indices into ``decoder.classes``."""
        check_integer("count", count, 1)
        check_integer("seed", seed, 0)
        labels = self._labels(count, label, seed)
        return generate(self.network, seeded_latents(count, self.latent_dimension, seed), labels), labels

    def draw_between(self, rows: int, steps: int, *, seed: int = 0, label: Any = None) -> tuple[Tensor, Tensor | None]:
        """As :meth:`interpolations`, but as the network makes them, with labels as indices."""
        for name, value, minimum in (("rows", rows, 1), ("steps", steps, 2), ("seed", seed, 0)):
            check_integer(name, value, minimum)
        first, last = seeded_latents(2 * rows, self.latent_dimension, seed).chunk(2)
        cosine = torch.cosine_similarity(first, last, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)
        angle = cosine.acos()[:, None, None]
        t = torch.linspace(0, 1, steps, device="cpu")[None, :, None]
        path = (((1 - t) * angle).sin() * first[:, None] + (t * angle).sin() * last[:, None]) / angle.sin()
        labels = self._labels(rows, label, seed)
        labels = labels.repeat_interleave(steps) if labels is not None else None
        return generate(self.network, path.flatten(0, 1), labels), labels

    def _labels(self, count: int, label: Any, seed: int) -> Tensor | None:
        if label is None:
            if self.classes and (counts := self.decoder.counts):
                shares = np.divide(counts, sum(counts))
                return torch.from_numpy(np.random.default_rng(seed).choice(self.classes, count, p=shares))
            return cyclic_labels(count, self.classes)
        if not isinstance(label, int | str | np.integer | np.bool_):
            raise ArgumentTypeError("label", f"expected one of the data's labels, got {label!r}")
        known = self.decoder.classes if self.classes else ()
        if str(label) not in known:
            wanted = f"one of {', '.join(known)}" if known else "none, for the run has no labels"
            raise ArgumentValueError("label", f"expected {wanted}, got {label!r}")
        return torch.full((count,), known.index(str(label)), device="cpu")

    def export(self, path: Path | str) -> None:
        """Writes the generator for ``torch.export.load``, which needs PyTorch alone.

        It takes latent vectors (B, latent_dimension), with classes also labels (B,), for any B, and returns samples in
        the user's units and type: those of :meth:`sample`. A table's are float64 numbers (B, columns), of dates the
        seconds since 1970, of a category its place in the list. The lists, the names of columns and of labels are in
        the extra file ``units.json``.

        Raises:
            ValueError: the suffix is another than ``.pt2``, or PyTorch cannot export the network.
            OSError: the file cannot be written.
        """
        if not isinstance(path, str | Path) or Path(path).suffix != ".pt2":
            raise ArgumentValueError("path", f"expected a file of type .pt2, got {path}")
        example = [torch.zeros(2, self.latent_dimension, device="cpu")]
        if self.classes:
            example.append(torch.zeros(2, dtype=torch.int64, device="cpu"))
        batch = torch.export.Dim("batch", min=1)
        try:
            channels = self.network(*example).shape[1]
            exported = torch.export.export(
                _InUnits(self.network, self.decoder, channels).eval(),
                tuple(example),
                dynamic_shapes=(tuple({0: batch} for _ in example),),
                strict=False,
            )
        except Exception as error:  # a network of one's own may do anything
            reason = str(error).strip().split("\n", 1)[0]
            raise ArgumentValueError("run", f"torch.export cannot export the generator: {reason}") from error
        written = io.BytesIO()  # a full disk would abort PyTorch's own writer
        torch.export.save(exported, written, extra_files={UNITS: json.dumps(self.decoder.describe())})
        with whole_file(Path(path)) as unfinished:
            unfinished.write_bytes(written.getbuffer())


class _InUnits(nn.Module):
    """The network, and the way back to the user's units."""

    def __init__(self, network: nn.Module, decoder: Decoder, channels: int) -> None:
        super().__init__()
        self.network, self.units = network, decoder.units(channels)
        self.dtype = decoder.torch_dtype()

    def forward(self, *inputs: Tensor) -> Tensor:
        samples: Tensor = self.units(self.network(*inputs)).to(self.dtype)
        return samples
