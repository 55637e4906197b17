"""Command lines that are wrong, each for one reason."""

import os
import stat
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from training import SMALL, options, run, write_image
from wgan_fast.train import TrainConfig

NUMBERS = ["nan", "inf", "-1", "x", "", "1e999", "0x10"]
INTEGERS = ["9" * 25, "-1", "1.5", "x", "", "nan", "1e3", "9" * 5000]


def of_settings() -> list[list[str]]:
    """Each option with values outside of its range, and of another type."""
    found = []
    for setting in fields(TrainConfig):
        name, rules = f"--{setting.name.replace('_', '-')}", setting.metadata
        if rules["choices"] is not None:
            values = ["nothing", "", "WGAN-GP ", "../x", "None"]
        elif rules["minimum"] is not None:
            values = INTEGERS + (["0"] if rules["minimum"] > 0 else [])
        elif rules["number"] is not None:
            values = NUMBERS + (["1"] if rules["number"].get("below") == 1.0 else ["-0.5"])
        else:
            values = {
                "generator": [
                    "nn",
                    "nn:",
                    ":make",
                    "no_module:make",
                    "json:nothing",
                    "json:loads",
                    "os:getcwd",
                    "a b:c",
                ],
                "critic": ["", "x y:z", "json:JSONDecoder", "math:pi"],
                "features": ["math:pi", "x", "no_module:f"],
                "budget": ["", "2", "2x", "-1h", "0s", "nan h", "1h30"],
                "device": ["", "gpu", "cuda:99", "mps", "cpu:x", "meta"],
                "size": ["0", "-1", "x", "16x", "16x16x16", "1e3"],
                "out": [""],
                "resume": [],
            }.get(setting.name, [])
        found += [[name, value] for value in values]
    return found


def files(folder: Path) -> list[tuple[str, object]]:
    """Data that are none."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (20, 16, 16), dtype=np.uint8)
    arrays = {
        "empty": np.zeros((0, 2)),
        "one": np.zeros((1, 2)),
        "text": np.array(["a", "b"]),
        "complex": np.ones((9, 2), complex),
        "scalar": np.array(3.0),
        "line": np.ones(9),
        "deep": np.ones((2, 2, 2, 2, 2)),
        "constant": np.ones((9, 2)),
        "nan": np.full((9, 2), np.nan),
        "infinite": np.full((9, 2), np.inf),
        "nan_images": np.full((9, 3, 16, 16), np.nan),
        "seven": np.ones((9, 16, 16, 7)),
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "flat": np.full((9, 16, 16), 7),
        "mixed": np.where(random.random((9, 2)) > 0.9, np.nan, 1.0),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "short_labels.npz", samples=images, labels=np.arange(3))
    np.savez(folder / "deep_labels.npz", samples=images, labels=np.zeros((20, 2), int))
    np.savez(folder / "two.npz", a=images, b=images)
    np.savez(folder / "none.npz")
    (folder / "named.npz").write_bytes((folder / "constant.npy").read_bytes())
    (folder / "archive.npy").write_bytes((folder / "two.npz").read_bytes())
    texts = {
        "empty.csv": "",
        "blank.csv": "\n\n",
        "header.csv": "a,b\n",
        "row.csv": "a,b\n1,2\n",
        "ragged.csv": "a,b\n1,2\n3\n",
        "numbers.csv": "1.5,2.5\n" * 9,
        "twice.csv": "a,a\n1,2\n3,4\n",
        "nameless.csv": "a,\n1,2\n3,4\n",
        "constant.csv": "a,b\n" + "1,2\n" * 9,
        "quote.csv": 'a,b\n"1,2\n3,4\n',
        "text.npz": "text",
        "text.npy": "text",
        "page.csv": "<html>\n<p>, </p>\n</html>\n",
        "text.parquet": "text",
        "data.xlsx": "PK",
        "data": "a,b\n",
        "x.txt": "1 2",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes("a,b\n\xe9,1\n2,3\n".encode("latin-1"))
    for name in (
        "empty_folder",
        "of_text",
        "deep/er/est",
        "both/a",
        "with_pipe",
        "one_image",
        "loop",
        "half",
        "floats",
    ):
        (folder / name).mkdir(parents=True)
    (folder / "of_text" / "x.png").write_text("no image")
    write_image(folder / "deep" / "er" / "est" / "x.png")
    for place in ("both/x.png", "both/a/x.png", "one_image/x.png"):
        write_image(folder / place)
    os.mkfifo(folder / "with_pipe" / "x.png")
    os.mkfifo(folder / "pipe.csv")
    (folder / "loop" / "x.png").symlink_to("x.png")
    (folder / "gone.csv").symlink_to("nowhere.csv")
    for number in range(20):
        write_image(folder / "half" / f"{number}.png")
    half = folder / "half" / "7.png"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 4])
    Image.fromarray(random.random((16, 16)).astype(np.float32)).save(folder / "floats" / "x.tif")
    missing = [
        "nowhere",
        "nowhere/",
        "digit",
        "25gaussian",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "x\ny.csv",
        "~",
        "\x7f",
    ]
    known = sorted(path for path in folder.iterdir() if not stat.S_ISDIR(path.lstat().st_mode))
    folders = ["empty_folder", "of_text", "deep", "both", "with_pipe", "one_image", "loop", "floats"]
    return [("--data", item) for item in [*missing, *known, *(folder / name for name in folders)]]


def settings_files(folder: Path) -> list[list[object]]:
    texts = [
        "",
        "a",
        "[]",
        "- 1\n",
        "stepz: 3\n",
        "steps: [3]\n",
        "steps: 0\n",
        "data: 5.5\n",
        "out: x\n",
        "resume: true\n",
        "trust: true\n",
        "steps: 1.5\n",
        "algorithm: 3\n",
        "conditional: maybe\n",
        "learning_rate: fast\n",
        "a: &x 1\nb: *x\n",
        "generator: math:pi\n",
        "beta1: 1\n",
        "device: 0\n",
        "steps: !!int x\n",
        "\t\n",
        "a: b: c\n",
        "width: true\n",
    ]
    found: list[list[object]] = [["--config", folder / "nowhere.yaml"], ["--config", folder]]
    for number, text in enumerate(texts):
        (folder / f"settings{number}.yaml").write_text(text)
        found.append(["--config", folder / f"settings{number}.yaml"])
    return found


def of_runs(folder: Path) -> list[list[object]]:
    """Wrong uses of a run of vectors, and of one with labels."""
    whole, labelled = folder / "whole", folder / "labelled"
    run(whole)
    run(labelled, data="digits", conditional=True, latent_dimension=4)
    text, absent = folder / "x.txt", folder / "nowhere"
    outs = ["x.gif", "x", "", ".", "nowhere/x.npy", "x.png", "x.pt", folder, "/dev/full", "/proc/x.npy"]
    found: list[list[object]] = [["sample", whole, "--out", out] for out in outs]
    found += [
        ["export", whole, "--out", out] for out in ("x.pt", "x", "", folder, "nowhere/x.pt2", "/proc/x.pt2", "x.onnx")
    ]
    for command in ("sample", "evaluate", "export"):
        found += [
            [command, place] for place in (text, absent, "", folder, "/dev/null", folder / "both", folder / "text.npz")
        ]
        found += [[command], [command, whole, "--nothing"], [command, whole, whole]]
    for option, values in {
        "--count": ["0", "-1", "x", "1.5", "", "9" * 30],
        "--seed": ["-1", "x", "9" * 30],
        "--label": ["0", "cat", ""],
        "--interpolate": ["1", "0", "-3", "x"],
    }.items():
        found += [["sample", whole, option, value] for value in values]
    found += [["sample", labelled, "--label", label] for label in ("10", "-1", "cat", "", "1.0")]
    found += [["sample", labelled, "--out", "x.csv"]]
    for option, values in {
        "--count": ["0", "1", "x"],
        "--device": ["gpu", "cuda:99"],
        "--features": ["x", "math:pi"],
    }.items():
        found += [["evaluate", whole, option, value] for value in values]
    found += [["evaluate", labelled, "--data", data] for data in (text, absent, "25gaussians")]
    resumed: list[list[object]] = [
        ["--steps", "1"],
        ["--width", "16"],
        ["--seed", "5"],
        ["--algorithm", "wgan"],
        ["--batch-size", "8"],
        ["--optimizer", "rmsprop"],
        ["--overwrite"],
        ["--config", whole / "config.yaml"],
        ["--data", "digits"],
        ["--budget", "1h"],
    ]
    found += [["train", "--resume", "--out", whole, *more] for more in resumed]
    found += [["train", "--resume", "--out", place] for place in (absent, text, folder / "empty_folder", "")]
    found += [["train", "--resume", "auto", "--out", place] for place in (text, folder / "both")]
    found += [["train", "--resume"], ["train", "--resume", "never", "--out", whole], ["train", "--out", whole]]
    found += [["train", "--overwrite", "--out", place] for place in (folder, folder / "both", text, ".")]
    found += [
        ["reproduce", "nothing"],
        ["reproduce", "--seed", "-1"],
        ["reproduce", "--out", text],
        ["nothing"],
        ["--nothing"],
    ]
    return found


def together() -> list[list[str]]:
    """Settings that do not go together."""
    return [
        ["--algorithm", "wgan", "--penalty-weight", "1"],
        ["--precision", "16", "--device", "cpu"],
        ["--conditional"],
        ["--size", "16"],
        ["--colour"],
        ["--label", "kind"],
        ["--model", "dcgan"],
        ["--model", "resnet"],
        ["--data", "digits", "--label", "x"],
        ["--data", "digits", "--model", "dcgan", "--depth", "2"],
        ["--steps", "5", "--steps"],
        ["--out"],
        ["extra"],
        ["--no-out"],
    ]


def wrong_inputs(folder: Path) -> list[list[object]]:
    """All of them, with files and runs in ``folder`` that they need."""
    small = options(**SMALL | {"n_critic": 1})
    train: list[list[object]] = [list(line) for line in (*of_settings(), *files(folder), *settings_files(folder))]
    train += [list(line) for line in together()]
    trained = []
    for number, line in enumerate(train):
        out = [] if line[0] == "--out" else ["--out", folder / f"out{number}"]
        trained.append(["train", *([] if line[0] == "--config" else small), *line, *out])
    return trained + of_runs(folder)
