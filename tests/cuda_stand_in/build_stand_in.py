"""Builds what the tests of this folder need, for the PyTorch that runs it: the stand-in for CUDA, and the package with
its kernels compiled for the CPU. Run in the repository's root, after the package was built with its CUDA kernels:

    python tests/cuda_stand_in/build_stand_in.py FOLDER

It writes FOLDER/libcuda_stand_in.so and FOLDER/wgan_fast/. The code between Python and the kernels is that of the
build with nvcc, whose object files are linked again.
"""

import os
import shlex
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch.utils.cpp_extension import CUDA_HOME, library_paths

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Contraction would change results; the build with nvcc leaves it out, too.
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]


def run(*command: object) -> None:
    print(*command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def build_stand_in(folder: Path) -> None:
    library = folder / "libcuda_stand_in.so"
    # nvcc calls the C++ compiler with the path of CUDA's headers.
    host = [f"-Xcompiler={flag}" for flag in FLAGS[2:]]
    nvcc = Path(CUDA_HOME or "/usr/local/cuda", "bin", "nvcc")
    run(nvcc, *FLAGS[:2], "-shared", "-cudart=none", *host, HERE / "cuda_stand_in.cpp", "-o", library, "-ldl")
    for name in ("libcuda.so.1", "libcuda.so"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(library.name)


def build_package(folder: Path) -> None:
    package = folder / "wgan_fast"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "wgan_fast", package, ignore=shutil.ignore_patterns("_C.*", "_*.json", "__pycache__"))
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    kernels = []
    for source in sorted((ROOT / "csrc" / "kernels").glob("*.cu")):
        kernels.append(folder / f"{source.stem}.cu.o")
        include = [f"-I{ROOT / 'tests' / 'cuda_on_host'}", f"-I{ROOT / 'csrc'}"]
        # A fortified longjmp refuses to go to another stack, which is what fibers do.
        fibers = ["-DCUDA_ON_HOST_FIBERS", "-U_FORTIFY_SOURCE"]
        run(*compiler, *FLAGS, *fibers, *include, "-c", "-xc++", source, "-o", kernels[-1])
    built = ROOT / "build" / f"{sys.implementation.cache_tag}-torch-{torch.__version__}"
    sources = sorted((ROOT / "csrc").rglob("*.cpp"))
    glue = [built / f"{source.relative_to(ROOT)}.o" for source in sources]
    libraries = [f"-L{path}" for path in library_paths("cpu")]
    libraries += ["-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python"]
    extension = package / f"_C{EXTENSION_SUFFIXES[0]}"
    run(*compiler, "-shared", "-fopenmp", *glue, *kernels, *libraries, "-o", extension)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    build_stand_in(folder)
    build_package(folder)
