"""Training in one line: what goes in comes back in its units and its type."""

import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import SMALL, cli, write_image
from wgan_fast.train import TrainConfig, TrainedGenerator, Trainer, fit
from wgan_fast.train.data.opening import Preparation, open_memory

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Pairs(torch.utils.data.Dataset):
    """(sample, label), as torchvision's datasets."""

    def __init__(self, samples, labels):
        self.samples, self.labels = samples, labels

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index], self.labels[index]


def test_arrays_and_tensors_come_back_as_they_were() -> None:
    random = np.random.default_rng(0)
    counts = fit(random.poisson(5, (60, 3)).astype(np.int16), **SMALL).sample(7)
    assert counts.shape == (7, 3) and counts.dtype == np.int16
    images = torch.rand(40, 3, 12, 10, dtype=torch.bfloat16)
    generator = fit(images, labels=["ant", "bee"] * 20, model="mlp", out="images", **SMALL)
    samples, labels = generator.sample(7)
    assert samples.shape == (7, 3, 12, 10) and samples.dtype == torch.bfloat16
    assert samples.min() >= 0 and samples.max() <= 1
    assert {*labels} == {"ant", "bee"} and {*generator.sample(4, label="bee")[1]} == {"bee"}
    again, _ = TrainedGenerator.load("images").sample(7)
    assert torch.equal(samples, again)
    assert cli("sample", "images", "--out", "x.npz", "--count", 7).exit_code == 0
    with np.load("x.npz") as file:  # in the type that NumPy has
        assert torch.equal(torch.from_numpy(file["samples"]).to(torch.bfloat16), samples)
        assert file["labels"].tolist() == labels.tolist()


def test_a_frame_comes_back_with_its_labels() -> None:
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"n": random.integers(0, 99, 80), "x": random.normal(size=80).round(2), "y": ["a", "b"] * 40}
    )
    generator = fit(frame, label="y", **SMALL)
    sample = generator.sample(20, label="b")
    assert sample.dtypes.to_dict() == frame.dtypes.to_dict() and list(sample) == list(frame)
    assert {*sample["y"]} == {"b"} and (sample["x"] == sample["x"].round(2)).all()


def test_labels_of_a_table_are_drawn_as_often_as_it_has_them() -> None:
    """2,000 draws of a share of 0.9 have a standard deviation of 0.0067; five of them are no chance."""
    frame = pandas.DataFrame({"x": np.arange(80.0), "y": ["a"] * 72 + ["b"] * 8})
    generator = fit(frame, label="y", out="run", **SMALL)
    first, other = generator.sample(2000), generator.sample(2000, seed=1)
    assert abs((first["y"] == "a").mean() - 0.9) < 0.034 and not first["y"].equals(other["y"])
    assert TrainedGenerator.load("run").sample(2000)["y"].equals(first["y"])


@pytest.mark.parametrize("kind", ["tensors", "pictures", "dicts"])
def test_datasets(kind: str) -> None:
    pictures = [Image.effect_noise((10, 14), 40) for _ in range(30)]
    labels = [10, 20, 30] * 10
    if kind == "tensors":
        data = Pairs([torch.rand(1, 14, 10) for _ in pictures], labels)
    elif kind == "pictures":
        data = Pairs(pictures, labels)
    else:
        data = Pairs(pictures, labels)
        data.__class__ = type(
            "Dicts", (Pairs,), {"__getitem__": lambda self, i: {"image": pictures[i], "label": labels[i]}}
        )
    generator = fit(data, conditional=True, **SMALL)
    samples, found = generator.sample(6)
    assert samples.shape == ((6, 1, 14, 10) if kind == "tensors" else (6, 14, 10))
    assert found.tolist() == [10, 20, 30, 10, 20, 30]


def test_pictures_of_a_dataset_keep_their_colours_and_their_range() -> None:
    how = Preparation()
    random = np.random.default_rng(0)
    grey, colour = (Image.effect_noise((10, 14), 40).convert(mode) for mode in ("L", "RGB"))
    for pictures, shape in (([grey, colour], (3, 14, 10)), ([grey, grey], (1, 14, 10))):
        samples = open_memory(Pairs(pictures, [0, 1]), None, how)
        assert samples.shape == shape
        wanted = [np.array(picture.convert("L" if shape[0] == 1 else "RGB")) for picture in pictures]
        assert np.array_equal(samples.decoder.give(samples.read(np.arange(2))), wanted)
    deep = [random.integers(0, 4096, (14, 10)).astype(np.uint16) for _ in range(4)]  # of a camera of 12 bits
    samples = open_memory(Pairs([Image.fromarray(pixels) for pixels in deep], [0] * 4), None, how)
    given = samples.decoder.give(samples.read(np.arange(4)))
    assert given.dtype == np.uint16 and np.array_equal(given, deep)


@pytest.mark.parametrize("values", [[np.bool_(True), np.bool_(False)], [np.array(5), np.array(7)], ["a", "b"]])
def test_labels_of_a_dataset_keep_their_values(values: list) -> None:
    samples = open_memory(Pairs(torch.rand(20, 3), values * 10), None, Preparation())
    assert samples.labels is not None
    assert samples.decoder.label_values(torch.from_numpy(samples.labels)).tolist() == values * 10


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([1, "a"] * 10, "of one type"),
        ([True, 2] * 10, "of one type"),
        ([[1], [1, 2]] * 10, "integers or texts"),
        (np.arange(20.0), "astype"),
        (np.array([b"a"] * 20), "astype"),
        (np.ma.array(np.arange(20), mask=[True, False] * 10), "masked"),
        (torch.rand(20, requires_grad=True), "astype"),
        (torch.rand(20).bfloat16(), "integers or texts"),
        (torch.zeros(20, device="meta"), "integers or texts"),
    ],
)
def test_labels_that_are_none_are_told(labels, told: str) -> None:
    """Of a list of 1 and "a" NumPy makes texts, and of True and 2 integers."""
    with pytest.raises((TypeError, ValueError), match=f"^labels: .*{told}"):
        open_memory(np.random.default_rng(0).normal(size=(20, 3)), labels, Preparation())


def test_names_and_folders(tmp_path: Path) -> None:
    assert fit("25gaussians", **SMALL).sample(3).shape == (3, 2)
    for number in range(12):
        write_image(tmp_path / "pictures" / f"{number}.jpg", size=(20, 20))
    samples = fit(tmp_path / "pictures", size=16, **SMALL).sample(3)
    assert samples.shape == (3, 16, 16, 3) and samples.dtype == np.uint8


@pytest.mark.long
def test_the_recipes_of_the_documentation(tmp_path: Path) -> None:
    """As they stand, but for the numbers of steps and the device."""
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    recipes = [code for code in re.findall(r"```python no-test\n(.*?)```", text, re.DOTALL) if "fit(" in code]
    assert len(recipes) == 3 and all(len(code.splitlines()) < 10 for code in recipes)
    for number in range(8):
        write_image(tmp_path / "photos" / f"{number}.png", size=(70, 64))
    customers = pandas.DataFrame({"age": range(20, 60), "plan": ["basic", "plus"] * 20})
    customers.to_csv("customers.csv", index=False)
    found: dict = {}
    for code in recipes:
        quick = re.sub(r"steps=[\d_]+", "steps=2, batch_size=8, width=8", code).replace('device="cuda"', 'device="cpu"')
        exec(quick, found)
        if "digits" in code:
            assert found["images"].shape == (64, 16, 16) and found["images"].dtype == np.uint8
            assert {*found["labels"].tolist()} == {*range(10)} and len(found["sevens"]) == 8
        elif "photos" in code:
            assert found["images"].shape == (16, 64, 64, 3) and found["images"].dtype == np.uint8
        else:
            assert {*found["frame"]["plan"]} == {"basic"} and len(found["frame"]) == 100
            assert found["frame"].dtypes.to_dict() == pandas.read_csv("customers.csv").dtypes.to_dict()


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [*network.state_dict().values()]


def test_each_network_has_its_own_learning_rate() -> None:
    """The one whose rate is negligible stays where it was; the other moves."""
    for still, setting in (("generator", "generator_rate"), ("critic", "critic_rate")):
        trainer = Trainer(TrainConfig(**SMALL, out=Path(still), **{setting: 1e-30}))
        before = {name: [*map(torch.clone, weights(getattr(trainer, name)))] for name in ("generator", "critic")}
        trainer.steps.schedules(0)
        trainer.steps.critic_step(0)(trainer.data.batch(0, 16, 0).samples, trainer.fakes)
        trainer.steps.generator_step(trainer.latents)
        for name, old in before.items():
            moved = any(not torch.equal(a, b) for a, b in zip(old, weights(getattr(trainer, name)), strict=True))
            assert moved == (name != still)


def test_a_run_starts_from_the_weights_of_another() -> None:
    first = Trainer(TrainConfig(**SMALL, out=Path("first")))
    first.run()
    settings = {**SMALL, "seed": 5, "start_from": "first"}
    second = Trainer(TrainConfig(**settings, out=Path("second")))
    for name in ("generator", "critic", "averaged_generator"):
        assert all(map(torch.equal, weights(getattr(second, name)), weights(getattr(first, name))))
    assert second.step == 0 and not second.steps.optimizers[0].state
    with pytest.raises(ValueError, match=r"^start_from: the networks are not the checkpoint's: "):
        Trainer(TrainConfig(**settings | {"width": 9}))
    with pytest.raises(ValueError, match=r"^start_from: there is no checkpoint "):
        Trainer(TrainConfig(**settings | {"start_from": "nowhere"}))


def test_a_run_goes_on_with_the_same_data_only() -> None:
    data = np.random.default_rng(0).normal(size=(60, 2))
    whole = fit(data, out="whole", **SMALL).sample(5)
    fit(data, out="parts", **SMALL | {"steps": 2})
    assert np.array_equal(fit(data, out="parts", resume=True, steps=4).sample(5), whole)
    with pytest.raises(ValueError, match="data: array has other"):
        fit(data + 1, out="parts", resume=True, steps=6)
    result = cli("train", "--resume", "--out", "parts")
    assert result.exit_code == 2 and "wgan_fast.train.fit(data, out=..., resume=True)" in result.stderr


@pytest.mark.parametrize("make", [list, pandas.Series, pandas.Categorical, lambda texts: np.array(texts, dtype=object)])
def test_labels_of_any_sequence(make) -> None:
    """pandas holds texts as objects."""
    samples = open_memory(np.eye(6), make(["b", "a", "b"] * 2), Preparation())
    assert samples.decoder.classes == ("a", "b") and samples.labels.tolist() == [1, 0, 1] * 2
    with pytest.raises(ValueError, match="labels: the array: expected labels of integers or texts"):
        open_memory(np.eye(6), make(["b", None, "b"] * 2), Preparation())


def test_an_interrupt_says_how_to_go_on() -> None:
    def interrupt() -> None:
        while not list(Path().glob("run/metrics.jsonl")):
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(
        KeyboardInterrupt, match=r"^stopped; run has a checkpoint of step \d+. To go on: wgan_fast.train.fit"
    ):
        fit(np.random.default_rng(0).normal(size=(60, 2)), out="run", **SMALL | {"steps": 10**6})
    assert Path("run/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "data: expected a name, a path, an array, .* got int", lambda: fit(5)),
        (TypeError, r"data: expected a name, .* got list; make it an array with numpy.array\(data\)", lambda: fit([1])),
        (TypeError, r"got dict; name one of its parts, such as data\['train'\]", lambda: fit({"train": np.eye(4)})),
        (TypeError, r"got Series; .* data.to_frame\(\)", lambda: fit(pandas.Series([1.0, 2.0]))),
        (TypeError, r"got csr_array; make it dense with data.toarray\(\)", lambda: fit(csr_array(np.eye(4)))),
        (TypeError, "data: the array: a masked array; fill", lambda: fit(np.ma.masked_array(np.eye(4), np.eye(4)))),
        (TypeError, "data: expected a dense tensor", lambda: fit(torch.eye(4).to_sparse())),
        (TypeError, "data: expected a dense tensor", lambda: fit(torch.ones(4, 2, device="meta"))),
        (ValueError, "expected at least 2 samples, of which 1 is held out, got 1", lambda: fit(np.ones((1, 2)))),
        (ValueError, "labels: the array: expected labels .* got int64 of shape", lambda: fit(np.eye(4), labels=[1, 2])),
        (ValueError, "labels: expected none beside a name", lambda: fit("digits", labels=[1])),
        (ValueError, "labels: expected none beside a DataFrame", lambda: fit(pandas.DataFrame({"a": [1, 2]}), [1, 2])),
        (ValueError, "label: names a column of a table, and the array is none", lambda: fit(np.eye(4), label="x")),
        (ValueError, "size: applies to images only", lambda: fit(np.eye(4), size=16)),
        (TypeError, "item 0 of the dataset: expected a tensor", lambda: fit(Pairs(["a"], [1]))),
        (TypeError, "data: .* got ndarray; wgan_fast.train.fit takes data", lambda: TrainConfig(data=np.eye(3))),
        (TypeError, "^epochs: there is no such setting", lambda: fit(np.eye(4), epochs=3)),
    ],
)
def test_what_cannot_be_fitted_is_told(error, message, call) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not Path("runs").exists()
