"""The machine code that nvcc made of the CUDA kernels, for compute capability 9.0: accesses of 128 bits, registers, no
local memory, and no arithmetic in float64 unless the numbers are. It reads the object files of a build with CUDA, as
`make cuda-build` makes, with the cuobjdump of CUDA or of Triton.

An accidental double literal, an index that defeats vectorisation, or an array that leaves the registers shows here.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OBJECTS = ROOT / "build" / f"{sys.implementation.cache_tag}-torch-{torch.__version__}" / "csrc" / "kernels"
ARCHITECTURE = "sm_90"

#: For the kernel that takes 16 bytes at a time: loads and stores of 128 bits at least, registers at most, by nvcc 13.0.
#: RMSprop and clipping have the code of all types in one kernel.
WHOLE_VECTORS = r"""
kernel                                             loads  stores  registers
interpolate_whole_kernel<.*>                           8       4         64
backward_whole_kernel<.*>                              4       4         64
whole_rows_kernel<\d+, (2, double|4, float|8, .*)>     5       0         40
segments_kernel<(2, double|4, float|8, .*)>            5       0         40
piecewise_linear_kernel<(2, double|4, float|8, .*)>    4       4         80
apply_mask_kernel<(2, double|4, float|8, .*)>          4       4         64
clip_weights_kernel<.*>                               16      16         64
rmsprop_kernel<.*>                                    24      16         80
"""


@dataclass(frozen=True)
class Kernel:
    name: str  #: with its template's arguments
    instructions: Counter[str]
    registers: int


def cuobjdump() -> str | None:
    found = shutil.which("cuobjdump")
    spec = importlib.util.find_spec("triton")
    beside_triton = Path(spec.origin or "").parent / "backends" / "nvidia" / "bin" / "cuobjdump" if spec else None
    return found or (str(beside_triton) if beside_triton and beside_triton.exists() else None)


def why_not() -> str | None:
    """Why there is nothing to read, or None."""
    if not any(OBJECTS.glob("*.cu.o")):
        return "nothing was built with CUDA here"
    return None if cuobjdump() and shutil.which("c++filt") else "there is no cuobjdump or no c++filt"


reason = why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


def dump(option: str, path: Path) -> str:
    folder = str(Path(cuobjdump() or "").parent)  # where nvdisasm is
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [cuobjdump() or "", option, "-arch", ARCHITECTURE, path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def readable(symbol: str) -> str:
    """Such as interpolate_kernel<4, float>."""
    name = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout
    return re.sub(r"\(anonymous namespace\)::|wgan_fast::|^void ", "", name).partition("(")[0].strip()


@cache
def kernels() -> list[Kernel]:
    found = []
    for path in sorted(OBJECTS.glob("*.cu.o")):
        registers = dict(re.findall(r"Function (\S+):\s+REG:(\d+)", dump("-res-usage", path)))
        _, *parts = re.split(r"\n\s*Function : (\S+)\n", dump("-sass", path))
        for symbol, code in zip(parts[::2], parts[1::2], strict=True):
            names = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", code)
            found.append(Kernel(readable(symbol), Counter(names), int(registers[symbol])))
    return found


def count(kernel: Kernel, pattern: str) -> int:
    return sum(number for name, number in kernel.instructions.items() if re.fullmatch(pattern, name))


def is_of_float64(kernel: Kernel) -> bool:
    return "double" in kernel.name or kernel.name.startswith(("clip_weights", "rmsprop"))


def test_every_source_is_read() -> None:
    expected = {path.stem for path in (ROOT / "csrc" / "kernels").glob("*.cu")}
    assert {path.name.removesuffix(".cu.o") for path in OBJECTS.glob("*.cu.o")} >= expected
    assert len(kernels()) >= 100


def test_no_local_memory() -> None:
    assert not [kernel.name for kernel in kernels() if count(kernel, r"(LDL|STL)(\..*)?")]


def test_no_arithmetic_in_float64() -> None:
    """The penalty's formula arrives in float64; comparing its power with 2 and rounding it is no arithmetic."""
    arithmetic = r"D(ADD|MUL|FMA)(\..*)?|MUFU\.\w*64H"
    assert not [kernel.name for kernel in kernels() if not is_of_float64(kernel) and count(kernel, arithmetic)]
    assert any(count(kernel, arithmetic) for kernel in kernels() if is_of_float64(kernel)), "the pattern finds nothing"


@pytest.mark.parametrize("line", WHOLE_VECTORS.strip().splitlines()[1:])
def test_whole_vectors(line: str) -> None:
    pattern, loads, stores, registers = re.split(r"\s{2,}", line.strip())
    matching = [kernel for kernel in kernels() if re.fullmatch(pattern, kernel.name)]
    assert matching
    for kernel in matching:
        assert count(kernel, r"LDG\..*128.*") >= int(loads), kernel.name
        assert count(kernel, r"STG\..*128.*") >= int(stores), kernel.name
        assert kernel.registers <= int(registers), kernel.name
