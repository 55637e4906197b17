"""The examples run, each in a short form and in a process of its own; those whose packages are missing are skipped."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
#: Example -> (the package it needs, the arguments of its main).
SHORT = {
    "plain_loop": ("torch", "steps=2"),
    "images": ("torch", "steps=1, batch=4"),
    "r3gan_update": ("torch", "steps=2"),
    "lightning_module": ("lightning", "steps=6, folder={tmp!r}"),
    "fabric": ("lightning", "steps=5"),
    "accelerate_loop": ("accelerate", "steps=5"),
    "distributed": ("torch", "steps=2"),
    "ctgan_penalty": ("ctgan", "steps=1, batch=50"),
    "hugging_face_dataset": ("datasets", "steps=2"),
}


def run(example: str, arguments: str, processes: int = 1) -> list[subprocess.Popen[str]]:
    """Starts main(arguments); it must return a finite number. Of several processes each ends at once: Gloo may hang."""
    program = (
        f"import math, os, {example} as example\n"
        f"value = example.main({arguments})\n"
        "assert math.isfinite(value), value\n" + "os._exit(0)" * (processes > 1)
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "HF_HUB_OFFLINE": "1"}
    shared |= {"PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=FOLDER.parent,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(processes)
    ]


def wait(started: list[subprocess.Popen[str]]) -> None:
    for process in started:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors


def test_every_example_is_run_and_short() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == SHORT.keys()
    lengths = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert max(lengths.values()) < 60, lengths


@pytest.mark.slow
@pytest.mark.parametrize("example", [name for name in SHORT if name != "distributed"])
def test_example(example: str, tmp_path: Path) -> None:
    package, arguments = SHORT[example]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    wait(run(example, arguments.format(tmp=str(tmp_path))))


@pytest.mark.slow
def test_lightning_with_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    wait(run("lightning_module", f"steps=6, devices=2, folder={str(tmp_path)!r}", processes=2))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_distributed(way: str) -> None:
    wait(run("distributed", f"steps=2, way={way!r}", processes=2))


NOTEBOOKS = {path.stem: path for path in (FOLDER / "notebooks").glob("*.ipynb")}


def code_of(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_are_executed_and_small() -> None:
    assert NOTEBOOKS.keys() == {"quick_start", "own_table", "own_images", "theory"}
    for notebook in NOTEBOOKS.values():
        cells = code_of(notebook)
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
        assert any("image/png" in output.get("data", {}) for output in outputs)
        assert notebook.stat().st_size < 150_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(name: str, tmp_path: Path) -> None:
    """Its code as one program, with few steps; the pictures in it are of a full run."""
    cells = code_of(NOTEBOOKS[name])
    for module in ("matplotlib", "lightning"):
        pytest.importorskip(module)
    program, replaced = re.subn(
        r"^STEPS = \d+$", "STEPS = 2", "\n".join("".join(cell["source"]) for cell in cells), flags=re.MULTILINE
    )
    assert replaced == 1
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"MPLBACKEND": "Agg"}, check=True)
