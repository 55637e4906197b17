"""The wheel of `make wheels`, in a fresh environment for each of its torches, and for one that it does not hold."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHEELS = [*Path(os.environ.get("WGAN_FAST_DIST", ROOT / "dist")).glob("wgan_fast-*manylinux*.whl")]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wgan_fast" / "wheels"
ENVIRONMENTS = sorted(Path(os.environ.get("WGAN_FAST_WHEEL_VENVS", CACHE)).glob("*/bin/python"))
USE = """
import torch, wgan_fast
from wgan_fast import _library
critic = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.LeakyReLU(0.2), torch.nn.Linear(8, 1))
wgan_fast.gradient_penalty(critic, torch.randn(4, 2), torch.randn(4, 2)).backward()
print(torch.__version__, _library.record.get("torch"), _library.extension and _library.extension.build_info()["torch"])
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (WHEELS and ENVIRONMENTS), reason="make wheels makes the wheel and the environments"),
]


def use(python: Path, packages: Path) -> tuple[list[str], str]:
    environment = os.environ | {"PYTHONPATH": str(packages)}
    result = subprocess.run(
        [python, "-c", USE], cwd=packages, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split(), result.stderr


def install(packages: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", packages, WHEELS[0]]
    subprocess.run(pip, check=True, capture_output=True)


@pytest.mark.parametrize("python", ENVIRONMENTS, ids=lambda python: python.parts[-3])
def test_each_torch_gets_its_extension(python: Path, tmp_path: Path) -> None:
    install(tmp_path)
    (torch, built_for, compiled_for), errors = use(python, tmp_path)
    assert torch.split(".")[:2] == built_for.split(".")[:2] == compiled_for.split(".")[:2]
    assert errors == ""


def test_another_torch_gets_the_reference(tmp_path: Path) -> None:
    install(tmp_path)
    held = sorted((tmp_path / "wgan_fast" / "_builds").iterdir())
    python = ENVIRONMENTS[0]
    version = ".".join(use(python, tmp_path)[0][0].split(".")[:2])
    shutil.rmtree(tmp_path / "wgan_fast" / "_builds" / f"torch-{version}")
    (_, *found), errors = use(python, tmp_path)
    assert found == ["None", "None"]
    rest = ", ".join(folder.name.removeprefix("torch-") for folder in held if not folder.name.endswith(version))
    assert f"this wheel holds extensions for torch {rest}, and this is torch {version}" in errors
