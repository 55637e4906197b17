"""Instructions that each CPU kernel takes for an element, counted by Callgrind.

Valgrind knows no AVX-512 and says so to the program that runs in it, so the clone for x86-64-v3 is the one that is
counted, on any machine: unlike a time, the count depends on the compiler alone. A kernel that is no longer vectorised
takes several times as many.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "build_support"))
from compiler_flags import ARITHMETIC, OPTIMISE  # noqa: E402 (from the folder just added)

COMPILER = shlex.split(os.environ.get("CXX", "g++"))
BY_PYTHON = ["-fwrapv", "-fPIC"]  # what Python adds to the flags of every extension; both move the counts a little
COUNT = 4096  # elements, as in main.cpp

HEADROOM = 1.05  # compilers differ
# For an element; norms: for a row. By GCC 12.2, which does not vectorise piecewise_linear of float64 on AVX2.
# 16-bit types are converted by integer code, which takes its part.
INSTRUCTIONS = """
kernel                                float16  bfloat16   float32   float64
interpolate                            12.436     2.793     0.909     1.781
sums_of_squares                         3.040     0.837     0.620     0.995
norms                                       -         -     2.686     3.187
gradient_norm_penalty_backward          9.507     2.183     0.669     1.291
piecewise_linear                       15.781     5.406     2.750    13.125
apply_mask                             11.188     3.562     1.438     4.000
clip_weights                            0.937     0.937     1.375     2.750
nonfinite                               0.687     0.687     1.000     2.125
rmsprop                                23.500     8.187     2.875     5.750
rmsprop_with_decay                     23.375     8.312     3.000     6.000
silu                                   14.252     7.758     5.000         -
silu_backward                          18.723    10.033     6.500         -
silu_double_backward                   35.424    20.240    14.125         -
gelu                                   17.139    10.645     7.875         -
gelu_backward                          20.842    12.152     8.625         -
gelu_double_backward                   35.422    20.238    14.125         -
gelu_tanh                              15.133     8.639     5.875         -
gelu_tanh_backward                     20.479    11.789     8.250         -
gelu_tanh_double_backward              38.555    23.371    17.250         -
tanh                                   16.514    10.020     7.250         -
tanh_backward                          13.158     4.469     1.000         -
tanh_double_backward                   22.854     7.670     1.625         -
sigmoid                                14.127     7.633     4.875         -
sigmoid_backward                       13.033     4.344     0.875         -
sigmoid_double_backward                22.977     7.793     1.750         -
softplus                               16.678    10.184     7.375         -
softplus_backward                      18.617     9.928     6.375         -
softplus_double_backward               33.432    18.248    12.125         -
elu                                    16.670    10.176     7.375         -
elu_backward                           17.240     8.551     5.000         -
elu_double_backward                    31.305    16.121    10.000         -
elu_of_output                          16.670    10.176     7.375         -
elu_of_output_backward                 13.299     4.609     1.125         -
elu_of_output_double_backward          23.117     7.934     1.875         -
mish                                   14.502     8.008     5.250         -
mish_backward                          19.090    10.400     6.875         -
mish_double_backward                   36.045    20.861    14.750         -
logsigmoid                             16.285     9.791     7.000         -
logsigmoid_backward                    18.094     9.404     5.875         -
logsigmoid_double_backward             32.672    17.488    11.375         -
softsign                               10.209     3.715     1.000         -
softsign_backward                      13.285     4.596     1.125         -
softsign_double_backward               24.486     9.303     3.250         -
layer_normalization                    26.292    23.501     6.283    12.704
layer_normalization_backward           35.935    27.070    10.567    20.395
layer_normalization_double_backward    47.984    41.502    11.062    20.908
group_normalization                    27.555    24.334     7.639    13.763
group_normalization_backward           39.772    33.133    16.546    24.476
group_normalization_double_backward    50.416    45.094    19.916    28.073
"""


def table() -> dict[tuple[str, str], float]:
    (_, *types), *rows = map(str.split, INSTRUCTIONS.strip().splitlines())
    return {
        (kernel, dtype): float(number)
        for kernel, *numbers in rows
        for dtype, number in zip(types, numbers, strict=True)
        if number != "-"
    }


def why_not() -> str | None:
    """Why there is nothing to count, or None."""
    if shutil.which("valgrind") is None:
        return "there is no valgrind"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the table is for x86-64 on Linux"
    if not re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text()):
        return "Valgrind offers no AVX2 on a processor that has none"
    macros = subprocess.run([*COMPILER, "-dM", "-E", "-xc++", os.devnull], capture_output=True, text=True).stdout
    gcc = re.search(r"define __GNUC__ (\d+)", macros)
    if gcc is None or int(gcc[1]) < 12 or "__clang__" in macros:
        return "only GCC 12 and later compile the clone for x86-64-v3"
    return None


@pytest.fixture(scope="session")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The instructions of each call, by the name that main.cpp gives it."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("instructions")
    flags = ["-std=c++20", *OPTIMISE, *ARITHMETIC, *BY_PYTHON, "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
    kernels = sorted((ROOT / "csrc" / "kernels").glob("*.cpp"))
    subprocess.run([*COMPILER, *flags, *kernels, HERE / "main.cpp", "-o", folder / "kernels"], check=True, timeout=900)
    callgrind = ["valgrind", "--tool=callgrind", "--combine-dumps=yes", f"--callgrind-out-file={folder / 'counts'}"]
    result = subprocess.run([*callgrind, folder / "kernels"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip() == "x86-64-v3", "the table is for another instruction set"
    dumps = (folder / "counts").read_text()
    found = re.findall(r"^desc: Trigger: Client Request: (.+?)$.*?^totals: (\d+)$", dumps, re.MULTILINE | re.DOTALL)
    return {name: int(total) for name, total in found}


@pytest.mark.parametrize(("kernel", "dtype"), list(table()))
def test_instructions_of_an_element(counts: dict[str, int], kernel: str, dtype: str) -> None:
    # What a call costs however few its elements are is not in the difference.
    more = counts[f"{kernel} {dtype} {2 * COUNT}"] - counts[f"{kernel} {dtype} {COUNT}"]
    expected = table()[kernel, dtype]
    assert more / COUNT <= HEADROOM * expected
    assert more / COUNT >= expected / 2, "half as many: lower the table, so that they stay so few"
