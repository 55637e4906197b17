"""The compilers' flags, for setup.py, CMakeLists.txt and the tests that count instructions."""

from __future__ import annotations

OPTIMISE = ["-O3"]
# Contraction into fused multiply-adds would make results depend on the instruction set. Compilers do not vectorise a
# square root that may set errno, nor move an operation that may trap out of its branch.
ARITHMETIC = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
WARNINGS = ["-Wall", "-Wextra"]
ERRORS = ["-Werror", "-Wno-error=array-bounds"]  # GCC 13 warns of std::vector<bool> in PyTorch's headers


def cxx_flags(*, werror: bool) -> list[str]:
    return [*ARITHMETIC, "-fvisibility=hidden", *WARNINGS, *ERRORS * werror]


def nvcc_flags(*, werror: bool) -> list[str]:
    """With line numbers for profilers, and without contraction; with ``werror`` a register spill is an error too."""
    strict = ["-Werror=all-warnings", "-Xptxas=-warn-spills,-Werror"] * werror
    return ["-lineinfo", "-fmad=false", *(f"-Xcompiler={flag}" for flag in cxx_flags(werror=werror)), *strict]
