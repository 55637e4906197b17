"""The code of the README and of docs/ runs as it stands."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


def code_in(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


LOOP, EXAMPLE = code_in("README.md")


def test_example() -> None:
    names: dict[str, object] = {}
    exec(EXAMPLE, names)
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor) and loss.isfinite()


def test_loop() -> None:
    names: dict[str, Any] = {}
    exec(LOOP, names)
    assert names["output"].loss.isfinite()


def test_troubleshooting_quotes_real_messages() -> None:
    """What stands in quotation marks is in a message of the library."""
    quoted = re.findall(r'^\| "([^"]+)" \|', (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    source = "".join(path.read_text() for path in (ROOT / "wgan_fast").rglob("*.py"))
    source = source.replace("{name}'s loss is {loss}", "critic's loss is nan")
    assert len(quoted) >= 3 and [text for text in quoted if text not in source] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 100


@pytest.mark.parametrize("recipe", code_in("docs/critics.md"), ids=["precision", "packing", "lazy"])
def test_recipes(recipe: str) -> None:
    names: dict[str, Any] = {}
    exec(recipe, names)
    if "optimizer" in names:  # it took a step
        assert all(names["optimizer"].state[weight]["step"] > 0 for weight in names["critic"].parameters())
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor) and loss.isfinite()


@pytest.mark.parametrize("recipe", code_in("docs/migrating.md"), ids=["step", "penalty", "packing"])
def test_moving_a_loop(recipe: str) -> None:
    names: dict[str, Any] = {}
    exec(recipe, names)
    assert names.get("output", names.get("loss")) is not None
    assert all(parameter.grad.isfinite().all() for parameter in names["critic"].parameters())


@pytest.mark.parametrize(
    "recipe", code_in("docs/step.md"), ids=["loop", "lazy", "StyleGAN2", "process group", "DDP", "FSDP"]
)
def test_steps(recipe: str) -> None:
    """In a process that ends at once: one that destroys a process group of Gloo, and then what still holds it, may wait
    for ever, because PyTorch joins threads that wait for Python's lock.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    program = f"{recipe}\nimport os\nos._exit(0 if output.loss.isfinite() else 1)"
    subprocess.run([sys.executable, "-c", program], env=os.environ | alone, check=True, timeout=300)
