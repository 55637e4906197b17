"""What a run trains on, as endless batches: a batch depends on the seed and on its number, and on nothing else.

So a run goes on where it stopped by naming a number, and neither the count of worker processes nor that of training
processes changes what is learnt from.
"""

import difflib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wgan_fast._checks import ArgumentFileNotFoundError, ArgumentValueError
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.samples import PATHS, Samples, open_samples, refuse_image_settings
from wgan_fast.train.data.toys import TOYS, Distribution, make_toy

#: The data that need no path.
DATASETS = (*TOYS, "digits")
_ALL = slice(None)
# The streams of random numbers that one seed has.
_TRAINING, _HELD_OUT, _SPLIT = range(3)


class Batch(NamedTuple):
    """Real samples.

    Attributes:
        samples: float32 (B, *shape), on the CPU.
        labels: int64 (B,), or None.
    """

    samples: Tensor
    labels: Tensor | None


class Data(ABC):
    """Where real samples come from.

    Attributes:
        shape: of one sample.
        decoder: the way back to the user's units.
        classes: the names of the labels; empty where there are none.
        centres: the modes of a toy distribution, of shape (modes, dimension), or None.
        sigma: the standard deviation of every mode, per coordinate, or None.
    """

    centres: Tensor | None = None
    sigma: float | None = None

    def __init__(self, shape: tuple[int, ...], decoder: Decoder) -> None:
        self.shape = shape
        self.decoder = decoder

    @property
    def classes(self) -> tuple[str, ...]:
        return self.decoder.classes

    @abstractmethod
    def batch(self, number: int, size: int, seed: int, rows: slice = _ALL) -> Batch:
        """The batch of this number, from 0 without end, for training; a function of the arguments alone.

        Args:
            number: of the batch.
            size: samples in it.
            seed: decides what is in it.
            rows: which of its samples are wanted.
        """

    @abstractmethod
    def held_out(self, count: int, seed: int) -> Batch:
        """At most ``count`` samples that no training batch holds."""


class ToyData(Data):
    """A toy distribution, whose samples are fresh at every draw."""

    def __init__(self, distribution: Distribution) -> None:
        dimension = distribution.dimension
        columns = ("x", "y") if dimension == 2 else tuple(f"x{column}" for column in range(dimension))
        super().__init__((dimension,), Decoder("vectors", columns, (0.0,) * dimension, (1.0,) * dimension))
        self.centres, self.sigma = distribution.centres, distribution.sigma
        self.distribution = distribution

    def batch(self, number: int, size: int, seed: int, rows: slice = _ALL) -> Batch:
        return Batch(self._draw(size, seed, _TRAINING, number)[rows].clone(), None)

    def held_out(self, count: int, seed: int) -> Batch:
        return Batch(self._draw(count, seed, _HELD_OUT, 0), None)

    def _draw(self, count: int, *stream: int) -> Tensor:
        seed = int(_sequence(*stream).generate_state(1, np.uint64)[0])
        return self.distribution.sample(count, torch.Generator().manual_seed(seed))


class FiniteData(Data):
    """Samples that are read again and again, in a fresh order each time.

    A tenth of them, at least 1 and at most 2,500, is held out.

    Args:
        samples: all of them.
        seed: decides which are held out.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        super().__init__(samples.shape, samples.decoder)
        if len(samples) < 2:
            raise ArgumentValueError("data", "expected at least 2 samples, of which 1 is held out, got 1")
        order = np.random.default_rng(_sequence(seed, _SPLIT, 0)).permutation(len(samples))
        kept_back = min(2500, max(1, len(samples) // 10))
        self._samples, self._held_out, self._training = samples, order[:kept_back], np.sort(order[kept_back:])
        self._known: tuple[tuple[int, int], Any] | None = None

    def batch(self, number: int, size: int, seed: int, rows: slice = _ALL) -> Batch:
        epochs, places = np.divmod(np.arange(number * size, (number + 1) * size)[rows], len(self._training))
        return self._read(
            np.concatenate([self._epoch(seed, epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])
        )

    def held_out(self, count: int, seed: int) -> Batch:
        random = np.random.default_rng(_sequence(seed, _HELD_OUT, 0))
        return self._read(random.permutation(self._held_out)[:count])

    def _epoch(self, seed: int, epoch: int) -> Any:
        """The order of the training samples in an epoch. The last one is remembered: many batches share it."""
        if self._known is None or self._known[0] != (seed, epoch):
            order = np.random.default_rng(_sequence(seed, _TRAINING, epoch)).permutation(self._training)
            self._known = ((seed, epoch), order)
        return self._known[1]

    def _read(self, indices: Any) -> Batch:
        labels = self._samples.labels
        return Batch(self._samples.read(indices), None if labels is None else torch.from_numpy(labels[indices]))


def _sequence(seed: int, stream: int, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(stream, number))


def make_data(source: str, *, seed: int = 0, size: int | None = None, colour: bool | None = None) -> Data:
    """Opens data.

    Args:
        source: a name in :data:`DATASETS` (a folder of the same name is ``./name``), or a path:

            - a folder of images, or of one folder of images for each class;
            - ``.npy``, or ``.npz`` with an array ``samples`` (or a single one) and perhaps integers ``labels``: numbers
              (N, D) are vectors; uint8 (N, H, W) or (N, H, W, channels) are images; floats (N, channels, S, S) within
              [-1, 1] are images taken as they are;
            - ``.csv``: columns of numbers under a line with their names.

            Vectors are standardised, images scaled to [-1, 1].
        seed: decides which samples are held out, where the data are finite.
        size: the side of images, a power of two of at least 16: their centre square is resized to it. None is 32 for a
            folder, 16 for ``digits``, and the images' own size for arrays.
        colour: whether images have 3 channels, or 1. None is 3 for a folder, 1 for ``digits``, and as they are for
            arrays.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: the source, its content, ``size`` or ``colour`` is not as described. What the header of an image
            does not tell is found only when the image is read, and the error then names the file too.
    """
    if source in TOYS:
        refuse_image_settings(source, size, colour)
        return ToyData(make_toy(source))
    path = Path(source)
    if source not in DATASETS and not path.exists():
        if path.suffix or os.sep in source:
            raise ArgumentFileNotFoundError("data", f"there is no {source}; expected {', '.join(DATASETS)}, or {PATHS}")
        near = difflib.get_close_matches(source, DATASETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ArgumentValueError("data", f"expected one of {', '.join(DATASETS)}, or {PATHS}, got {source!r}{hint}")
    return FiniteData(open_samples(source, size, colour), seed)


def batches(
    data: Data,
    size: int,
    seed: int,
    *,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Training batches without end.

    Args:
        data: where they come from.
        size: samples in a batch, over all training processes.
        seed: decides what is in them.
        start: the number of the first.
        rank: of this training process, which gets rows ``rank::world`` of each batch.
        world: training processes.
        workers: processes that prepare batches ahead, one thread each; they end with the iterator. 0 is none.
        pin_memory: whether batches lie in page-locked memory, from which they go to a GPU without waiting.

    Raises:
        ValueError: ``world`` does not divide ``size``; and, while iterating, what reading the data raises, also in a
            worker.
    """
    if size % world:
        raise ArgumentValueError("size", f"expected a multiple of the {world} training processes, got {size}")
    loader = DataLoader(
        _Numbered(data, size, seed, slice(rank, None, world)),
        batch_size=None,
        sampler=itertools.count(start),
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader draws a number, which should not come from the global state
    )
    return _raising(loader)


class _Numbered(Dataset[Batch | Exception]):
    """Batches by their number. An error about the data is returned, because a loader would bury it in a traceback."""

    def __init__(self, data: Data, size: int, seed: int, rows: slice) -> None:
        self.data, self.size, self.seed, self.rows = data, size, seed, rows

    def __getitem__(self, number: int) -> Batch | Exception:
        try:
            return self.data.batch(number, self.size, self.seed, self.rows)
        except (ValueError, OSError) as error:
            return error


def _raising(results: Iterable[Batch | Exception]) -> Iterator[Batch]:
    for result in results:
        if isinstance(result, Exception):
            raise result
        yield result
