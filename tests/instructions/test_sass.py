"""The machine code that nvcc made of the CUDA kernels, for every architecture of a build: accesses of 128 bits,
registers, no local memory, no float64 unless the numbers are, no fused multiply-adds where the CPU has none, and few
enough instructions that memory, not issue, limits a kernel. It reads the object files of a build with CUDA, as
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
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OBJECTS = ROOT / "build" / f"{sys.implementation.cache_tag}-torch-{torch.__version__}" / "csrc" / "kernels"

#: Registers of a thread, by design (csrc/kernels/launch.cuh): four blocks of 256 threads share 65,536 registers, and
#: 1,024 threads keep memory busy. Versions for partial vectors: two blocks.
REGISTERS = 65_536 // (4 * 256)
REGISTERS_OF_PARTIAL = 65_536 // (2 * 256)

#: Thread instructions for 16 bytes moved, at which a GPU issues as fast as its memory delivers: multiprocessors x 4
#: warp instructions a cycle x clock rate x 32 / bandwidth x 16 bytes. T4, A100, H100, B200, RTX 5090.
ISSUED = {
    "sm_75": 40 * 4 * 1.59e9 * 32 / 0.32e12 * 16,
    "sm_80": 108 * 4 * 1.41e9 * 32 / 2.04e12 * 16,
    "sm_90": 132 * 4 * 1.70e9 * 32 / 3.35e12 * 16,
    "sm_100": 148 * 4 * 1.85e9 * 32 / 8.00e12 * 16,
    "sm_120": 170 * 4 * 2.40e9 * 32 / 1.79e12 * 16,
}
#: Half of them leaves room for stalls. The B200's memory outgrew its issue rate: all of them.
SHARE = {architecture: 1.0 if architecture == "sm_100" else 0.5 for architecture in ISSUED}

#: For kernels that take 16 bytes at a time: the 128-bit loads and stores of the loop, thus also the loads that a thread
#: has in flight; reads and writes of 16 bytes in one round of it.
VECTORS = r"""
kernel                                             loads  stores  moved
interpolate_kernel<WholeRows<\d>, .*>                  8       4     12
backward_kernel<WholeRows<\d>, .*>                     4       4      8
piecewise_linear_kernel<WholeVectors<.*>, .*>          4       4      8
apply_mask_kernel<WholeVectors<.*>, .*>                4       4      8
clip_weights_kernel<.*>                                4       4      8
nonfinite_kernel<.*>                                   4       0
rmsprop_kernel<(float|BFloat16|Half), .*>              6       4     10
rmsprop_kernel<double, .*>                             3       2      5
whole_rows_kernel<\d+, (2, double|4, float|8, .*)>     5       0
segments_kernel<(2, double|4, float|8, .*)>            5       0
smooth_activation_kernel<Value, .*<[48], .*            2      20
smooth_activation_kernel<Back.*, .*<[48], .*           2      10
smooth_activation_kernel<Double.*, .*<[48], .*         3      20
normalization_kernel<\d+, [48], .*>                   10       2
normalization_backward_kernel<\d+, [48], .*>           8       2
normalization_double_backward_kernel<\d+, [48], .*>    6       2
sums_over_samples_kernel<[48], .*, First.*>            2       0
sums_over_samples_kernel<[48], .*, Second.*>           3       0
"""


@dataclass(frozen=True)
class Kernel:
    architecture: str
    name: str  #: with its template's arguments
    code: tuple[str, ...]  #: the instructions' names, in order
    registers: int

    def __str__(self) -> str:
        return f"{self.name} for {self.architecture}"

    def count(self, pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in self.code)

    def for_vectors(self) -> int:
        """The number of instructions from the first access of 128 bits to the last: the loop, without its preparation
        and the subroutines of divisions, and without what is done for each row between the loads and a barrier.
        """
        accesses = [i for i, name in enumerate(self.code) if re.fullmatch(f"{LOAD}|{STORE}", name)]
        loads = [i for i, name in enumerate(self.code) if re.fullmatch(LOAD, name)]
        barriers = [i for i, name in enumerate(self.code) if name.startswith("BAR")]
        for_rows = barriers[0] - loads[-1] if barriers else 0
        return accesses[-1] - accesses[0] + 1 - for_rows


LOAD, STORE = r"LDG\..*(128|256).*", r"STG\..*(128|256).*"
FLOAT64 = r"D(ADD|MUL|FMA|SETP|MNMX)(\..*)?|MUFU\.\w*64H|(F2F|F2I|I2F)\..*F64.*"


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
    command = [cuobjdump() or "", option, path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def readable(symbols: list[str]) -> list[str]:
    """Such as interpolate_kernel<WholeRows<4>, float>."""
    names = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    short = re.sub(r"\(anonymous namespace\)::|wgan_fast::|(?m:^void )", "", names)
    return [name.partition("(")[0].strip() for name in short.splitlines()]


@cache
def kernels() -> list[Kernel]:
    found = []
    for path in sorted(OBJECTS.glob("*.cu.o")):
        registers: dict[tuple[str, str], int] = {}
        architecture = ""
        for line in dump("-res-usage", path).splitlines():
            if match := re.match(r"arch = (sm_\w+)", line):
                architecture = match[1]
            elif match := re.search(r"Function (\S+):", line):
                symbol = match[1]
            if match := re.search(r"\bREG:(\d+)", line):
                registers[architecture, symbol] = int(match[1])
        codes: dict[tuple[str, str], list[str]] = {}
        for line in dump("-sass", path).splitlines():
            if match := re.match(r"\s*arch = (sm_\w+)", line):
                architecture = match[1]
            elif match := re.match(r"\s*Function : (\S+)", line):
                code = codes[architecture, match[1]] = []
            elif match := re.search(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", line):
                code.append(match[1])
        names = readable([symbol for _, symbol in codes])
        for name, ((architecture, symbol), code) in zip(names, codes.items(), strict=True):
            found.append(Kernel(architecture, name, tuple(code), registers[architecture, symbol]))
    return found


def is_of_float64(kernel: Kernel) -> bool:
    return "double" in kernel.name


def of_partial_vectors(kernel: Kernel) -> bool:
    return "<Any" in kernel.name


def test_every_source_is_read() -> None:
    expected = {path.stem for path in (ROOT / "csrc" / "kernels").glob("*.cu")}
    assert {path.name.removesuffix(".cu.o") for path in OBJECTS.glob("*.cu.o")} >= expected
    found = Counter(kernel.architecture for kernel in kernels())
    assert found and len(set(found.values())) == 1, "an architecture lacks kernels"
    assert min(found.values()) >= 100


def test_no_local_memory() -> None:
    assert not [str(kernel) for kernel in kernels() if kernel.count(r"(LDL|STL)(\..*)?")]


def test_registers() -> None:
    for kernel in kernels():
        assert kernel.registers <= (REGISTERS_OF_PARTIAL if of_partial_vectors(kernel) else REGISTERS), kernel


def test_no_float64() -> None:
    """None for other types, be it a comparison: the host converts the formulas' numbers. RMSprop reads its rate, scale
    and found_inf from tensors that may have float64, which is a conversion each."""
    for kernel in kernels():
        if not is_of_float64(kernel):
            allowed = 3 if kernel.name.startswith("rmsprop") else 0
            assert kernel.count(FLOAT64) == kernel.count(r"F2F\.F32\.F64.*") <= allowed, kernel
    assert any(kernel.count(FLOAT64) for kernel in kernels() if is_of_float64(kernel)), "the pattern finds nothing"


def test_no_fused_multiply_adds() -> None:
    """Where there is no division, root or power, whose exact results take them."""
    exact = r"(interpolate|apply_mask|piecewise_linear|clip_weights)_kernel<.*"
    fused = r"(FFMA|DFMA|HFMA2\.(BF16|MMA\.BF16))(\..*)?"
    assert not [str(kernel) for kernel in kernels() if re.fullmatch(exact, kernel.name) and kernel.count(fused)]
    assert any(kernel.count(fused) for kernel in kernels()), "the pattern finds nothing"


def matching(pattern: str) -> list[Kernel]:
    found = [kernel for kernel in kernels() if re.fullmatch(pattern, kernel.name)]
    assert found
    return found


@pytest.mark.parametrize("line", VECTORS.strip().splitlines()[1:])
def test_whole_vectors(line: str) -> None:
    pattern, loads, stores, *moved = re.split(r"\s{2,}", line.strip())
    for kernel in matching(pattern):
        assert kernel.count(LOAD) >= int(loads), kernel
        assert kernel.count(STORE) >= int(stores), kernel
        if (
            moved and kernel.architecture in ISSUED and not is_of_float64(kernel)
        ):  # many GPUs have few units for float64
            limit = int(moved[0]) * ISSUED[kernel.architecture] * SHARE[kernel.architecture]
            # nvcc makes two loops of one with a condition that is the same in every thread, as a negative slope of 0.
            loops = kernel.count(STORE) // int(stores)
            assert kernel.for_vectors() <= loops * limit, kernel


def test_masks_are_accessed_in_whole_sectors() -> None:
    """Threads exchange their bits in two steps; each then accesses the mask once, and neighbours access neighbours."""
    for kernel in matching(r"piecewise_linear_kernel<WholeVectors<.*"):
        assert kernel.count(r"STG\..*") - kernel.count(STORE) == 1, kernel
        assert kernel.count(r"SHFL\..*") == 2, kernel
    for kernel in matching(r"apply_mask_kernel<WholeVectors<.*"):
        assert kernel.count(r"LDG\..*") - kernel.count(LOAD) == 1, kernel
        assert kernel.count(r"SHFL\..*") == 2, kernel


def test_slope_by_row() -> None:
    """A block computes the slopes of its rows before a barrier; behind it each of a thread's four vectors takes one
    from shared memory.
    """
    for kernel in matching(r"backward_kernel<WholeRows<\d>, .*"):
        stores = [i for i, name in enumerate(kernel.code) if re.fullmatch(STORE, name)]
        barrier = next((i for i, name in enumerate(kernel.code) if name.startswith("BAR")), None)
        assert barrier is not None, kernel
        behind = replace(kernel, code=kernel.code[barrier : stores[-1]])
        assert behind.count(r"LDS(\..*)?") == 4 and behind.count(r"(MUFU|FCHK)(\..*)?") == 0, kernel
