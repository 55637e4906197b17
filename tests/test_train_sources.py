"""Batches as a function of their number, held-out samples, worker processes; names that are no data."""

import gc
import itertools
import multiprocessing
import pickle
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import assert_same
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.samples import Samples
from wgan_fast.train.data.sources import DATASETS, FiniteData, batches, make_data

# Where other threads live, Python 3.12 warns of every fork, also of a loader's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@dataclass
class Counted(Samples):
    """Samples that are their own indices."""

    count: int
    shape = (1,)
    decoder = Decoder("vectors", ("index",), (0.0,), (1.0,))

    def __len__(self):
        return self.count

    def read(self, indices):
        return torch.from_numpy(indices).float().unsqueeze(1)

    def identity(self):
        yield b""


def counted(count, seed=0):
    return FiniteData(Counted(count), seed)


def take(count, *arguments, **settings):
    return list(itertools.islice(batches(*arguments, **settings), count))


@pytest.mark.parametrize("source", DATASETS)
def test_a_batch_is_a_function_of_seed_and_number(source):
    data = make_data(source, seed=1)
    batch = data.batch(3, 32, seed=5)
    assert batch.samples.shape == (32, *data.shape)
    assert batch.samples.dtype == torch.float32
    assert (batch.labels is not None) == bool(data.classes)
    data.batch(4, 32, seed=5), data.held_out(10, seed=5)
    assert_same(data.batch(3, 32, seed=5), batch)
    assert_same(make_data(source, seed=1).batch(3, 32, seed=5), batch)
    assert not torch.equal(data.batch(4, 32, seed=5).samples, batch.samples)
    assert not torch.equal(data.batch(3, 32, seed=6).samples, batch.samples)
    assert not torch.equal(data.held_out(32, seed=5).samples, batch.samples)
    assert_same(data.held_out(32, seed=5), data.held_out(32, seed=5))


@settings(deadline=None)
@given(count=st.integers(2, 60), size=st.integers(1, 150), seed=st.integers(0, 2**40))
def test_an_epoch_holds_every_training_sample_once_and_none_that_is_held_out(count, size, seed):
    data = counted(count, seed)
    held_out = data.held_out(10**6, seed).samples.flatten().tolist()
    training = count - len(held_out)
    assert len(held_out) == max(1, count // 10)
    wanted = 3 * training
    drawn = torch.cat([data.batch(number, size, seed).samples for number in range(-(-wanted // size))]).flatten()
    epochs = drawn[:wanted].reshape(3, training).tolist()
    for epoch in epochs:
        assert sorted(epoch + held_out) == list(range(count))
    assert training < 8 or epochs[0] != epochs[1]


def test_at_most_2500_samples_are_held_out_and_fewer_can_be_asked_for():
    data = counted(30_000)
    assert len(data.held_out(10**6, 0).samples) == 2500
    assert data.held_out(10, 0).samples.unique().numel() == 10
    assert not torch.equal(counted(30_000, 1).held_out(10, 0).samples, data.held_out(10, 0).samples)


@settings(deadline=None)
@given(world=st.integers(1, 5), rows=st.integers(1, 9), start=st.integers(0, 20))
def test_processes_share_the_global_batch(world, rows, start):
    for data in (counted(17), make_data("8gaussians")):
        whole = take(2, data, world * rows, 3, start=start)
        parts = [take(2, data, world * rows, 3, start=start, rank=rank, world=world) for rank in range(world)]
        for number, batch in enumerate(whole):
            for rank in range(world):
                assert torch.equal(parts[rank][number].samples, batch.samples[rank::world])


def test_starting_at_a_number_is_skipping_what_is_before():
    for data in (counted(17), make_data("swissroll")):
        for late, early in zip(take(3, data, 8, 0, start=4), take(7, data, 8, 0)[4:], strict=True):
            assert_same(late, early)


def test_workers_change_nothing_and_end_with_the_iterator(classes_folder, capfd):
    state = torch.get_rng_state()
    data = make_data(str(classes_folder), size=16)
    for start in (0, 3):
        with_workers = batches(data, 4, 0, start=start, workers=2)
        for batch in take(5, data, 4, 0, start=start):
            assert_same(next(with_workers), batch)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        del with_workers
        gc.collect()
        deadline = time.monotonic() + 10
        while any(worker.is_alive() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_that_keeps_the_iterator_keeps_no_worker(classes_folder):
    """A worker ignores SIGTERM, so Python would wait for it at its exit, for ever."""
    held = batches(make_data(str(classes_folder), size=16), 4, 0, workers=2)
    next(held)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    workers[0].kill()
    with pytest.raises(RuntimeError, match="DataLoader worker") as kept, closing(held):
        deque(held, maxlen=0)
    workers[1].join(10)
    ended = not workers[1].is_alive()
    workers[1].kill()  # else pytest would not end
    assert ended, kept


def test_data_can_be_sent_to_a_fresh_process(classes_folder, table_file, tmp_path):
    vectors, images = tmp_path / "vectors.npy", tmp_path / "images.npy"
    np.save(vectors, np.random.default_rng(0).normal(size=(5000, 3)))
    np.save(images, np.random.default_rng(0).integers(256, size=(50, 20, 30, 1), dtype=np.uint8))
    sources = {str(classes_folder): 32, str(table_file): None, "digits": None, "8gaussians": None}
    for source, size in (sources | {str(vectors): None, str(images): 16}).items():
        data = make_data(source, size=size)
        sent = pickle.dumps(data)
        assert_same(pickle.loads(sent).batch(2, 5, 1), data.batch(2, 5, 1))
        if source in (str(vectors), str(images)):
            # The order of 4,500 samples, but not their content.
            assert len(sent) < 50_000


def test_a_batch_that_processes_cannot_share_is_refused_at_once():
    with pytest.raises(ValueError, match="size: expected a multiple of the 3 training processes, got 8"):
        batches(counted(10), 8, 0, world=3)


@pytest.mark.parametrize(
    ("error", "name", "settings", "message"),
    [
        (ValueError, "moons", {}, "data: expected one of 25gaussians, .*digits, or a folder of images.*, got 'moons'"),
        (ValueError, "8gausians", {}, "did you mean 8gaussians?"),
        (FileNotFoundError, "none.csv", {}, "data: there is no .*none.csv; expected 25gaussians"),
        (ValueError, "swissroll", {"size": 16}, "size: applies to images only, and swissroll holds vectors; got 16"),
    ],
)
def test_a_name_that_is_no_data_is_named(error, name, settings, message):
    with pytest.raises(error, match=message):
        make_data(name, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_held_out_in_proportion(tmp_path, seed):
    labels = np.array([0] * 190 + [1] * 9 + [2])
    np.savez(tmp_path / "x.npz", samples=np.random.default_rng(0).normal(size=(200, 2)), labels=labels)
    with pytest.warns(UserWarning, match="data: the label '2' has one sample"):
        data = make_data(str(tmp_path / "x.npz"), seed=seed)
    held_out = data.held_out(200, 0).labels
    assert len(held_out) == 20
    assert torch.bincount(held_out, minlength=3).tolist() == [19, 1, 0]
    assert set(data.batch(0, 180, 0).labels.tolist()) == {0, 1, 2}
