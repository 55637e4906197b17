"""The generator of a run: samples, interpolations, export."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from PIL import Image

from training import cli
from wgan_fast.train import TrainedGenerator
from wgan_fast.train.generator import seeded_latents


def test_a_table_comes_back_in_its_units(table_run: Path, tmp_path: Path) -> None:
    result = cli("sample", table_run, "--count", 30, "--seed", 1, "--out", tmp_path / "synthetic.csv")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "synthetic.csv").read_text().splitlines()
    assert lines[0] == "age,income,rooms" and len(lines) == 31
    means = np.loadtxt(lines[1:], delimiter=",").mean(0)
    assert 0 < means[0] < 80 and 5e4 < means[1] < 1.5e5
    assert (table_run / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_samples_are_seeded_and_labelled(digits_run: Path, tmp_path: Path) -> None:
    generator = TrainedGenerator.load(digits_run)
    first, labels = generator.sample(12, seed=1)
    again, _ = generator.sample(12, seed=1)
    assert np.array_equal(first, again) and labels.tolist() == [*range(10), 0, 1]
    other, sevens = generator.sample(12, seed=1, label=7)
    assert not np.array_equal(first, other) and {*sevens.tolist()} == {7}
    for name in ("grid.png", "images.npy", "images.npz"):
        assert cli("sample", digits_run, "--count", 12, "--out", tmp_path / name).exit_code == 0
    assert np.load(tmp_path / "images.npy").shape == (12, 16, 16)
    assert np.load(tmp_path / "images.npz")["labels"].tolist() == labels.tolist()


def test_single_images_go_into_folders_of_their_labels(digits_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits of mine"
    result = cli("sample", digits_run, "--count", 12, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [*"0123456789"]
    assert len(list((out / "1").iterdir())) == 2
    images, labels = TrainedGenerator.load(digits_run).sample(12)
    with Image.open(out / str(labels[11]) / "000011.png") as image:
        assert np.array_equal(np.asarray(image), images[11])
    again = cli("sample", digits_run, "--count", 12, "--out", out)
    assert again.exit_code == 2 and "is not empty" in again.stderr
    again = cli("sample", digits_run, "--count", 2, "--out", out, "--overwrite")  # the other ten would stay
    assert again.exit_code == 2 and len(list((out / "1").iterdir())) == 2
    assert cli("sample", digits_run, "--count", 2, "--out", tmp_path / "j", "--image-type", "jpg").exit_code == 0
    with Image.open(tmp_path / "j" / "0" / "000000.jpg") as image:
        assert image.format == "JPEG" and image.size == (16, 16)
    wrong = cli("sample", digits_run, "--out", tmp_path / "k", "--image-type", "gif")
    assert wrong.exit_code == 2 and wrong.stderr.startswith("error: --image-type: expected one of .png, .jpg")


@pytest.mark.parametrize("name", ["../x", "/x", "..", "", "a\\b"])
def test_a_label_of_a_strangers_file_names_no_folder_elsewhere(name: str, digits_run: Path, tmp_path: Path) -> None:
    state = torch.load(digits_run / "checkpoint.pt", weights_only=True)
    state["codec"]["classes"] = (name, *state["codec"]["classes"][1:])
    torch.save(state, tmp_path / "x.pt")
    result = cli("sample", tmp_path / "x.pt", "--out", tmp_path / "deep" / "out")
    assert result.exit_code == 2 and f"the label {name!r} cannot be the name of a folder" in result.stderr
    assert not (tmp_path / "deep").exists() and not (tmp_path / "x").exists()


def test_interpolations_begin_and_end_at_samples(digits_run: Path) -> None:
    generator = TrainedGenerator.load(digits_run)
    path, labels = generator.draw_between(2, 5, seed=3, label=4)
    ends, _ = generator.draw(4, seed=3, label=4)
    images, values = generator.interpolations(2, 5, seed=3, label=4)
    assert images.shape == (10, 16, 16) and images.dtype == np.uint8 and values.tolist() == [4] * 10
    assert path.shape == (10, 1, 16, 16) and labels.tolist() == [4] * 10
    torch.testing.assert_close(path[[0, 5, 4, 9]], ends, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "argument", "call"),
    [
        (TypeError, "count", lambda generator: generator.sample("ten")),
        (ValueError, "count", lambda generator: generator.sample(0)),
        (TypeError, "seed", lambda generator: generator.sample(2, seed="x")),
        (TypeError, "label", lambda generator: generator.sample(2, label=1.0)),
        (ValueError, "label", lambda generator: generator.sample(2, label="cat")),
        (ValueError, "label", lambda generator: generator.sample(2, label=10)),
        (ValueError, "rows", lambda generator: generator.interpolations(0, 4)),
        (ValueError, "steps", lambda generator: generator.interpolations(2, 1)),
        (ValueError, "path", lambda generator: generator.export(5)),
        (TypeError, "run", lambda generator: TrainedGenerator.load(5)),
        (ValueError, "run", lambda generator: TrainedGenerator.load("nowhere")),
    ],
)
def test_wrong_arguments_are_named(error: type, argument: str, call: Any, digits_run: Path) -> None:
    generator = TrainedGenerator.load(digits_run)
    with pytest.raises(error, match=f"^{argument}: "):
        call(generator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nowhere"], "run: there is no checkpoint"),
        (["{}/config.yaml"], "run: {}/config.yaml is truncated or not a checkpoint"),
        (["{}", "--out", "{}/nowhere/samples.npy"], "--out: {}/nowhere/samples.npy cannot be written: No such file"),
        (["{}", "--label", "11"], "--label: expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got '11'"),
        (["{}", "--label", "cat"], "--label: expected one of 0, 1, 2"),
        (["{}", "--out", "{}/samples.csv"], "--out: images go into a file of type .npy, .npz, .png, .jpg, .jpeg"),
        (["{}", "--out", "{}/samples.gif"], "--out: images go into"),
    ],
)
def test_what_cannot_be_sampled_is_told(arguments: list[str], message: str, digits_run: Path) -> None:
    result = cli("sample", *(argument.format(digits_run) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {message.format(digits_run)}") and result.stderr.count("\n") == 1


def test_the_exported_generator_needs_pytorch_alone(digits_run: Path, tmp_path: Path) -> None:
    result = cli("export", digits_run, "--out", tmp_path / "generator.pt2")
    assert result.exit_code == 0, result.output
    program = f"""
import sys
sys.modules["wgan_fast"] = None
import torch
generator = torch.export.load({str(tmp_path / "generator.pt2")!r}).module()
latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
torch.save(generator(latents, torch.arange(5)), {str(tmp_path / "samples.pt")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    expected, _ = TrainedGenerator.load(digits_run).sample(5, seed=2)
    assert np.array_equal(torch.load(tmp_path / "samples.pt").numpy(), expected)


def test_the_exported_generator_of_a_table_gives_its_numbers(mixed_run: Path, tmp_path: Path) -> None:
    generator = TrainedGenerator.load(mixed_run)
    generator.export(tmp_path / "generator.pt2")
    extra = {"units.json": ""}
    exported = torch.export.load(tmp_path / "generator.pt2", extra_files=extra).module()
    found = exported(seeded_latents(200, generator.latent_dimension, 0)).numpy()
    columns = json.loads(extra["units.json"])["columns"]
    frame = generator.sample(200)
    assert [column["name"] for column in columns] == list(frame)
    for place, column in enumerate(columns):
        wanted = frame[column["name"]]
        if column["kind"] == "category":
            names = [None if np.isnan(number) else column["categories"][int(number)] for number in found[:, place]]
            assert names == wanted.where(wanted.notna(), None).tolist()
        elif column["kind"] == "date":
            assert np.array_equal(found[:, place], wanted.to_numpy().astype("datetime64[s]").astype(np.float64))
        else:
            np.testing.assert_allclose(
                found[:, place], wanted.to_numpy(), rtol=0, atol=1.01 * 10.0 ** -column["decimals"]
            )
            assert np.mean(found[:, place] == wanted.to_numpy()) > 0.98  # another rounding of a last digit


def test_what_cannot_be_exported_is_told(digits_run: Path) -> None:
    for arguments, message in (
        (["export", digits_run, "--out", digits_run / "generator.onnx"], "--out: expected a file of type .pt2"),
        (
            ["export", digits_run, "--out", digits_run / "nowhere" / "generator.pt2"],
            "--out: .* cannot be written: No such file",
        ),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert re.match(f"error: {message}", result.stderr), result.stderr
    assert not list(digits_run.glob("*.onnx")) and not list(digits_run.glob("unfinished-*"))
