"""Builds the extension `wgan_fast._C`: the CPU kernels always, the CUDA kernels where there is nvcc and a CUDA torch.

Environment variables: WGAN_FAST_CUDA=0 leaves the CUDA kernels out, WGAN_FAST_CUDA=1 fails if they cannot be built;
WGAN_FAST_WERROR=1 makes warnings, register spills and a failed compilation errors; WGAN_FAST_STATIC_CUDART=1 links the
CUDA runtime into the extension, which then serves CPU builds of torch too; DEBUG=1, MAX_JOBS and TORCH_CUDA_ARCH_LIST
mean what they mean for every PyTorch extension.

If the CUDA kernels do not compile, the CPU kernels are built alone; if those do not compile either, wgan_fast is
installed without the extension and computes with its reference in plain PyTorch. `_build.json` inside the package
records the torch and the reasons, which a warning at the first use, `wgan-fast doctor` and the build's last line show.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

sys.path.append(str(Path(__file__).parent / "build_support"))
from compiler_flags import OPTIMISE, cxx_flags, nvcc_flags


def set_cuda_home() -> None:
    """Sets CUDA_HOME to the toolkit that nvcc reports: the nvcc on the path may be a script outside of it."""
    if (nvcc := shutil.which("nvcc")) and not os.environ.get("CUDA_HOME"):
        plan = subprocess.run([nvcc, "--dryrun", "none.cu"], capture_output=True, text=True).stderr
        if top := re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE):
            os.environ["CUDA_HOME"] = str(Path(top[1]).resolve())


def one_word_compiler() -> None:
    """Makes CXX one word, as torch quotes it: "ccache c++" would be looked for as a program of that name. torch starts
    ccache itself where there is one; other words go into a script.
    """
    words = shlex.split(os.environ.get("CXX", ""))
    if len(words) > 1 and Path(words[0]).name == "ccache":
        words = words[1:]
    if len(words) > 1:
        script = Path("build", "compiler", "c++").absolute()
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)
        words = [str(script)]
    if words:
        os.environ["CXX"] = words[0]


COMPILER = shlex.split(os.environ.get("CXX", "c++"))  # before it is one word, for messages
one_word_compiler()
set_cuda_home()  # before torch reads it
try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, include_paths, library_paths

    torch_missing = None
except ImportError as error:  # an sdist needs no torch
    from setuptools.command.build_ext import build_ext as BuildExtension  # type: ignore[no-redef]

    torch_missing = f"PyTorch could not be imported when it was built: {error}"

WERROR = os.environ.get("WGAN_FAST_WERROR") == "1"
DEBUG = os.environ.get("DEBUG") == "1"
CUDA_WANTED = os.environ.get("WGAN_FAST_CUDA")
STATIC_CUDART = os.environ.get("WGAN_FAST_STATIC_CUDART") == "1"
RECORD = "_build.json"


def cannot_compile() -> str | None:
    missing = next((word for word in COMPILER if not word.startswith("-") and shutil.which(word) is None), None)
    if torch_missing is None and missing is not None:
        return f"there was no C++ compiler ({missing}) when it was built"
    return torch_missing


def cuda_left_out() -> str | None:
    """Why the CUDA kernels are not built, or None if they are."""
    if CUDA_WANTED == "0":
        return "WGAN_FAST_CUDA=0 was set when it was built"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if CUDA_HOME is None or not (nvcc := shutil.which(Path(CUDA_HOME, "bin", "nvcc"))):
        return "nvcc was not found (install the CUDA toolkit, or set CUDA_HOME)"
    release = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"release (\d+)\.\d+", release)
    if version is None or version[1] != torch.version.cuda.split(".")[0]:
        found = version[0] if version else "of unknown release"
        return f"nvcc is {found} and torch was built with CUDA {torch.version.cuda}: the major versions must agree"
    return None


def cuda_architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, else those of this machine's GPUs, else all that this torch was built for."""
    if given := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return given.replace(" ", ";")
    capabilities = {torch.cuda.get_device_capability(device) for device in range(torch.cuda.device_count())}
    if not capabilities:
        # torch.cuda.get_arch_list() is empty without a GPU; the flags that it reads are there.
        capabilities = {(int(a), int(b)) for a, b in re.findall(r"sm_(\d+)(\d)\b", torch._C._cuda_getArchFlags() or "")}
    names = [f"{major}.{minor}" for major, minor in sorted(capabilities)] or ["8.0", "9.0"]
    return ";".join(names) + "+PTX"  # PTX of the newest, which the driver compiles for later GPUs


def shared_standard_library() -> list[str]:
    """libstdc++ as torch loads it. A compiler that links a copy of its own into the extension makes every error message
    with a number in it crash: the copy's streams and those of torch's library do not know each other.
    """
    asked = [*COMPILER, "-print-file-name=libstdc++.so.6"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip() if sys.platform == "linux" else ""
    return [found] if Path(found).is_absolute() else []


def extension(cuda: bool) -> Extension:
    if cannot_compile():
        return Extension("wgan_fast._C", [])
    sources = ["csrc/library.cpp", *sorted(glob("csrc/*/*.cpp"))]
    macros = []
    libraries = ["c10", "torch", "torch_cpu", "torch_python"]
    optimise = ["-O0", "-g"] if DEBUG else OPTIMISE
    no_symbols = [] if DEBUG else ["-g0"]  # Python adds -g
    # at::parallel_for is a template: it runs on torch's threads only if this code is compiled with OpenMP too. At run
    # time the OpenMP library that torch has already loaded serves.
    threads = ["-fopenmp"] if sys.platform == "linux" else []
    # torch's headers are system headers, so that warnings are about our code alone.
    system = [flag for path in include_paths("cuda" if cuda else "cpu") for flag in ("-isystem", path)]
    if cuda:
        sources += sorted(glob("csrc/kernels/*.cu"))
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures = cuda_architectures()
        macros += [("WGAN_FAST_CUDA", "1"), ("WGAN_FAST_CUDA_ARCHITECTURES", f'"{architectures}"')]
        # Neither torch_cuda nor c10_cuda: with the runtime linked into it, an extension serves CPU builds of torch too.
        libraries += ["cudart_static", "rt", "dl", "pthread"] if STATIC_CUDART else ["cudart"]
    return Extension(
        "wgan_fast._C",
        sources,
        include_dirs=[str(Path("csrc").absolute())],
        define_macros=macros,
        library_dirs=library_paths("cuda" if cuda else "cpu"),
        libraries=libraries,
        extra_compile_args={
            "cxx": [*optimise, *no_symbols, *cxx_flags(werror=WERROR), *threads, *system],
            "nvcc": [*optimise, *nvcc_flags(werror=WERROR), *system],
        },
        extra_link_args=[*threads, *shared_standard_library()],
        language="c++",
    )


@contextmanager
def compiler_output() -> Iterator[list[str]]:
    """The lines that the compilers print, collected while they are shown."""
    lines: list[str] = []
    reader, writer = os.pipe()
    shown = [os.dup(1), os.dup(2)]

    def pass_on() -> None:
        with open(reader, errors="replace") as stream:
            for line in stream:
                lines.append(line)
                os.write(shown[0], line.encode())

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    sys.stdout.flush()
    for stream_number in (1, 2):
        os.dup2(writer, stream_number)
    os.close(writer)
    try:
        yield lines
    finally:
        sys.stdout.flush()
        for stream_number, original in zip((1, 2), shown, strict=True):
            os.dup2(original, stream_number)
        thread.join(timeout=5)  # a compiler cache's server may keep the pipe open


class Build(BuildExtension):
    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # setuptools compares dates of sources alone and would keep the extension of another torch
        if torch_missing is None:  # keeps objects between builds, separately for each torch
            self.build_temp = str(Path("build", f"{sys.implementation.cache_tag}-torch-{torch.__version__}"))

    def run(self) -> None:
        library = Path(self.get_ext_fullpath("wgan_fast._C"))
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        failure = cannot_compile()
        left_out = None if failure else cuda_left_out()
        if (refused := failure or left_out) and CUDA_WANTED == "1":
            raise SystemExit(f"WGAN_FAST_CUDA=1 was set, but {refused}")
        if failure is None:
            failure = self.compile()
        if failure and (WERROR or CUDA_WANTED == "1"):
            raise SystemExit(f"wgan_fast was not compiled: {failure}")
        if failure and left_out is None and cannot_compile() is None:
            left_out = f"they did not compile: {failure}"
            self.extensions = self.distribution.ext_modules = [extension(cuda=False)]
            failure = self.compile()
        if failure:
            self.extensions = []
        record = {
            "torch": None if torch_missing else torch.__version__,
            "cuda": None if failure or left_out else torch.version.cuda,
            "debug": DEBUG,
            "failure": failure,
            "cuda_left_out": None if failure else left_out,
        }
        library.with_name(RECORD).write_text(json.dumps(record, indent=2) + "\n")
        if failure:
            print(f"WARNING: wgan_fast is installed without its extension: {failure}", file=sys.stderr)
        elif left_out:
            print(f"wgan_fast is installed without CUDA kernels: {left_out}", file=sys.stderr)

    def compile(self) -> str | None:
        """The first error, or None."""
        with compiler_output() as printed:
            try:
                super().run()
                return None
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
        return next((line.strip() for line in printed if re.search(r"\b(error|fatal)\b", line)), failure)

    def build_extensions(self) -> None:
        version = self.distribution.get_version()
        for extension in self.extensions:
            extension.define_macros.append(("WGAN_FAST_VERSION", f'"{version}"'))

        # An operator's .cpp and .cu share a name and need separate objects.
        def object_filenames(sources: list[str], strip_dir: bool = False, output_dir: str = "") -> list[str]:
            return [str(Path(output_dir, f"{source}.o")) for source in sources]

        self.compiler.object_filenames = object_filenames
        super().build_extensions()


# setuptools only adds to this folder: a deleted module would stay in the wheel.
for stale in glob("build/lib*"):
    shutil.rmtree(stale)

setup(ext_modules=[extension(cuda=not cannot_compile() and cuda_left_out() is None)], cmdclass={"build_ext": Build})
