"""Training data as endless batches. A batch is a function of the seed and its index alone.

A run therefore resumes from an index, and the numbers of worker and training processes do not change the batches.
"""

import difflib
import hashlib
import itertools
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wgan_fast._checks import ArgumentFileNotFoundError, ArgumentValueError
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.opening import IN_MEMORY, PATHS, Preparation, open_path
from wgan_fast.train.data.samples import Samples
from wgan_fast.train.data.toys import TOYS, Distribution, make_toy
from wgan_fast.train.run.signals import ignore_signals

#: Names of the built-in data.
DATASETS = (*TOYS, "digits")
_ALL = slice(None)
# Independent random streams of one seed.
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
    """A source of real samples.

    Attributes:
        shape: shape of one sample.
        decoder: converts samples to the user's units.
        classes: the names of the labels; empty without labels.
        centres: the modes of a toy distribution, of shape (modes, dimension), or None.
        sigma: the standard deviation of every mode, per coordinate, or None.
        decoded: whether reading a batch takes time; see :class:`.samples.Samples`.
    """

    centres: Tensor | None = None
    sigma: float | None = None
    decoded = False

    def __init__(self, shape: tuple[int, ...], decoder: Decoder) -> None:
        self.shape = shape
        self.decoder = decoder

    @property
    def classes(self) -> tuple[str, ...]:
        return self.decoder.classes

    def identity(self) -> dict[str, Any]:
        """``count`` and ``hash`` of the samples, by which a run knows its data again; both 0 of a distribution."""
        return {"count": 0, "hash": ""}

    @abstractmethod
    def batch(self, number: int, size: int, seed: int, rows: slice = _ALL) -> Batch:
        """A training batch, a function of the arguments alone.

        Args:
            number: index of the batch, from 0 without end.
            size: samples in the whole batch.
            seed: seed of the training stream.
            rows: the samples of the batch to return.
        """

    @abstractmethod
    def held_out(self, count: int, seed: int) -> Batch:
        """At most ``count`` samples that are in no training batch."""


class ToyData(Data):
    """A toy distribution. Every batch is drawn anew."""

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
    """A finite set of samples, shuffled anew in each epoch.

    A tenth of them, at least 1 and at most 2,500, is held out; of each label in proportion, and never the last one.

    Args:
        samples: all of them.
        seed: seed of the held-out split.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        super().__init__(samples.shape, samples.decoder)
        if len(samples) < 2:
            raise ArgumentValueError("data", "expected at least 2 samples, of which 1 is held out, got 1")
        order = np.random.default_rng(_sequence(seed, _SPLIT, 0)).permutation(len(samples))
        kept_back = min(2500, max(1, len(samples) // 10))
        if samples.labels is not None:
            order = _in_proportion(order, samples.labels)
            counts = np.bincount(samples.labels, minlength=len(samples.decoder.classes))
            alone = [repr(name) for name, count in zip(samples.decoder.classes, counts, strict=True) if count == 1]
            if alone:
                some = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
                labels = f"label {some} has" if len(alone) == 1 else f"labels {some} have"
                warnings.warn(
                    f"data: the {labels} one sample, which is trained on and never held out", UserWarning, stacklevel=3
                )
        self.decoded = samples.decoded
        self._samples, self._held_out, self._training = samples, order[:kept_back], np.sort(order[kept_back:])
        self._known: tuple[tuple[int, int], Any] | None = None

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for piece in self._samples.identity():
            digest.update(piece)
        if self._samples.labels is not None:
            digest.update(self._samples.labels.astype("<i8").tobytes())
        return {"count": len(self._samples), "hash": digest.hexdigest()}

    def batch(self, number: int, size: int, seed: int, rows: slice = _ALL) -> Batch:
        epochs, places = np.divmod(np.arange(number * size, (number + 1) * size)[rows], len(self._training))
        return self._read(
            np.concatenate([self._epoch(seed, epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])
        )

    def held_out(self, count: int, seed: int) -> Batch:
        random = np.random.default_rng(_sequence(seed, _HELD_OUT, 0))
        return self._read(random.permutation(self._held_out)[:count])

    def _epoch(self, seed: int, epoch: int) -> Any:
        """The order of the training samples in an epoch. The last order is cached, because many batches share it."""
        if self._known is None or self._known[0] != (seed, epoch):
            order = np.random.default_rng(_sequence(seed, _TRAINING, epoch)).permutation(self._training)
            self._known = ((seed, epoch), order)
        return self._known[1]

    def _read(self, indices: Any) -> Batch:
        labels = self._samples.labels
        return Batch(self._samples.read(indices), None if labels is None else torch.from_numpy(labels[indices]))


def _sequence(seed: int, stream: int, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(stream, number))


def _in_proportion(order: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order changed so that each label is as frequent among its first elements, any number of them, as in all, and
    that one element of each label comes last.
    """
    place = np.empty(len(order))  # of an element within its label, from 0 to below 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
        place[members[-1]] = 1.0
    return order[np.argsort(place, kind="stable")]


def make_data(
    source: str,
    *,
    seed: int = 0,
    size: int | str | None = None,
    colour: bool | None = None,
    alpha: bool = False,
    label: str | None = None,
    drop: str | None = None,
) -> Data:
    """Opens data.

    Args:
        source: a name in :data:`DATASETS` (a folder of the same name is ``./name``), or a path:

            - a folder of images, or a folder with one sub-folder of images per class;
            - ``.npy``, or ``.npz`` with an array ``samples`` (or a single array) and optional ``labels``, integers or
              texts: (N, D) are vectors; (N, H, W), (N, H, W, channels) and (N, channels, H, W) images; see
              :class:`.images.ImageArray`;
            - ``.csv``, ``.tsv``, ``.parquet``: a table of mixed types; see :class:`.tables.Column`.

            Vectors are standardised, images scaled to [-1, 1], tables encoded.
        seed: seed of the held-out split of finite data.
        size: side of the images, or ``HEIGHTxWIDTH``; they are cropped at the centre and resized to it. None means 32
            for a folder, 16 for ``digits``, and the images' own size for arrays.
        colour: True for 3 channels, False for 1. None means 1 for a folder of grey images and ``digits``, 3 for another
            folder, and unchanged for arrays.
        alpha: keep transparency as a further channel. Else it is blended with white.
        label: the column of a table that holds the labels.
        drop: the columns of a table that are left out, separated by commas.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: the source, its content or a setting is not as described. Images with a valid header but damaged
            pixels are found only when they are read; that error names the file, too.
    """
    how = Preparation(size, colour, alpha, label, drop)
    if source in TOYS:
        how.refuse_images(source)
        how.refuse_columns(source)
        return ToyData(make_toy(source))
    path = Path(source)
    if source not in DATASETS and not path.exists():
        if source in IN_MEMORY:
            raise ArgumentValueError(
                "data",
                f"the run was trained on data in memory ({source}): go on with wgan_fast.train.fit(data, out=..., "
                "resume=True), or name a file that holds them",
            )
        if path.suffix or os.sep in source:
            raise ArgumentFileNotFoundError("data", f"there is no {source}; expected {', '.join(DATASETS)}, or {PATHS}")
        near = difflib.get_close_matches(source, DATASETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ArgumentValueError("data", f"expected one of {', '.join(DATASETS)}, or {PATHS}, got {source!r}{hint}")
    return FiniteData(open_path(source, how), seed)


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
) -> Generator[Batch, None, None]:
    """Training batches without end. Close the generator to end its workers.

    Args:
        data: source of the samples.
        size: samples in a batch, over all training processes.
        seed: seed of the training stream.
        start: index of the first batch.
        rank: rank of this training process, which gets rows ``rank::world`` of each batch.
        world: number of training processes.
        workers: processes that prefetch batches, one thread each; they end with the generator. 0 reads in this process.
        pin_memory: put batches into page-locked memory, from which they are copied to a GPU asynchronously.

    Raises:
        ValueError: ``world`` does not divide ``size``. Iterating raises the errors of reading the data, also those of a
            worker, and says so where workers cannot be started.
        RuntimeError: a worker died. PyTorch raises that from a signal handler, too: anywhere, between two batches.
    """
    if size % world:
        raise ArgumentValueError("size", f"expected a multiple of the {world} training processes, got {size}")
    loader = DataLoader(
        _Numbered(data, size, seed, slice(rank, None, world)),
        batch_size=None,
        sampler=itertools.count(start),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # the loader draws a seed, which must not advance the global generator
    )
    return _raising(loader, workers)


class _Numbered(Dataset[Batch | Exception]):
    """Batches by index. Returns errors about the data, because a loader would wrap raised ones in a long traceback."""

    def __init__(self, data: Data, size: int, seed: int, rows: slice) -> None:
        self.data, self.size, self.seed, self.rows = data, size, seed, rows

    def __getitem__(self, number: int) -> Batch | Exception:
        try:
            return self.data.batch(number, self.size, self.seed, self.rows)
        except (ValueError, OSError) as error:
            return error


def _raising(loader: Iterable[Batch | Exception], workers: int) -> Generator[Batch, None, None]:
    try:
        results: Any = iter(loader)
    except OSError as error:  # no more processes, files or shared memory
        reason = error.strerror or error
        raise ArgumentValueError(
            "workers", f"processes that prefetch data cannot be started: {reason}; fewer of them, or 0, may help"
        ) from error
    try:
        while True:
            try:
                result = next(results)
            except (EOFError, OSError) as error:
                # Of a worker that died while it sent a batch: errors about the data are returned.
                raise RuntimeError("DataLoader worker exited unexpectedly") from error  # PyTorch's words, had it looked
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        # Not left to the last reference, which an error's traceback may hold: at its exit Python sends workers a signal
        # that they ignore, and waits for them.
        if workers:
            try:
                results._shutdown_workers()
            finally:  # a worker that hangs, and where the death of another interrupted this
                for worker in results._workers:
                    worker.kill()
