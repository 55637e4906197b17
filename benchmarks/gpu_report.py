"""Checks a commit on a machine with a GPU: build, GPU tests, timings, memory checks. `make gpu-report`.

Needs a Python with torch, and no network; installs into a temporary folder. After every step the outcome is written to
benchmarks/results/<device>.json, and to the folder $OUT if that is set. A failed step is recorded and does not stop the
others; the exit status is then 1. Everything ends after GPU_REPORT_SECONDS (540). Steps can be chosen by name:
`make gpu-report STEPS="doctor kernels"`.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import results
from results import ROOT

TAIL = 4000  # characters kept from the end of a failed step's output
SECONDS = float(os.environ.get("GPU_REPORT_SECONDS", "540"))  # from the start; later steps are cut short
GRACE = 10  # seconds that a step gets to end after its time limit
SANITIZER = ["--error-exitcode=9", "--launch-timeout=60", "--kernel-name", "kns=wgan_fast"]  # only our kernels

#: Step -> its benchmarks. Each step writes a file of its own, so a killed step loses only its own timings.
TIMINGS = {
    "kernels": "bandwidth",
    "toy": "critic_step and toy and not compile",
    "dcgan-64": "critic_step and dcgan-64 and not compile",
    "resnet": "critic_step and resnet and (graph or bfloat16)",
    "others": "not critic_step and not bandwidth",
}
#: In this order. The memory checks come last: if time runs out, timings are worth more.
STEPS = ("doctor", "tests", *TIMINGS, "memcheck", "racecheck", "initcheck", "synccheck")


def operators() -> None:
    """Runs every kernel for each dtype, with sizes for every tail and alignment, under the memory checkers."""
    from wgan_fast import clip_weights_, gradient_penalty, interpolate

    def batch(shape: tuple[int, ...], dtype: torch.dtype, offset: int) -> torch.Tensor:
        memory = torch.randn(offset + torch.Size(shape).numel(), device="cuda").to(dtype)
        return memory[offset:].view(shape)

    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for shape in ((1, 1), (3, 7), (65, 1023), (5, 3, 17, 19), (2, 300_001), (4000, 5)):
            for offset in (0, 1):
                real, fake = batch(shape, dtype, offset), batch(shape, dtype, offset)
                interpolate(real, fake)
                weight = batch(shape[1:], dtype, offset).requires_grad_()
                gradient_penalty(lambda x, weight=weight: (x * weight).square(), real, fake).backward()
                y, mask = torch.ops.wgan_fast.piecewise_linear(real, 0.2, 0.0, 1.0)
                torch.ops.wgan_fast.apply_mask(fake, mask, 0.2, y.stride())
                torch.ops.wgan_fast.piecewise_linear_(fake, 0.0, -0.5, 0.5)
                clip_weights_([real, fake, real.transpose(0, 1), weight])
                # Weights, gradients and averages. The second parameter's gradient has strides of its own.
                lists = [[batch(shape, dtype, offset), tensor] for tensor in (real, fake, real.square())]
                lists[1][1] = fake.transpose(0, 1).contiguous().transpose(0, 1)
                rate, scale, found_inf = torch.tensor([0.1, 2.0, 0.0], device="cuda").unbind()
                torch.ops.wgan_fast.rmsprop_(*lists, rate, 0.99, 1e-8, 0.1, False, 0.01, scale, found_inf)
    torch.cuda.synchronize()


class Report:
    """The result file, written after every step, so that a lost machine loses no finished step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = results.commit()  # before a result file modifies the checkout
        self.steps: dict[str, Any] = {}
        self.ends = time.monotonic() + SECONDS
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # ninja may be there
            "PYTHONPATH": f"{folder / 'site'}:{os.environ.get('PYTHONPATH', '')}",
        }

    def step(
        self, name: str, command: list[str], closes_with: str = "", limit: float = SECONDS, **environment: str
    ) -> bool:
        """Runs a command outside of the checkout, so that the package just built is imported.

        A step passes if its exit status is 0 and its last line contains ``closes_with``: pytest also exits with 0 if it
        skips every test.
        """
        print(f"== {name}", flush=True)
        start = time.monotonic()
        limit = min(limit, self.ends - start - GRACE)
        try:
            if limit <= 0:
                raise TimeoutError(f"not run: the {SECONDS:.0f} seconds are over")
            passed, output = run(command, limit, self.folder, {**self.environment, **environment})
        except OSError as error:
            passed, output = False, str(error)
        seconds = time.monotonic() - start
        closing = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        passed = passed and closes_with in closing
        self.steps[name] = {"passed": passed, "seconds": round(seconds, 1), "closing_line": closing}
        if not passed:
            self.steps[name]["output"] = output[-TAIL:]
            print(output[-TAIL:])
        print(f"== {name} {'passed' if passed else 'FAILED'} in {seconds:.0f} s: {closing}", flush=True)
        self.write()
        return passed

    def write(self) -> None:
        timings = results.gather(sorted(self.folder.glob("timings-*.json")))
        found = results.Results(results.environment(torch.device("cuda")), self.commit, timings, self.steps)
        file = found.write()
        if out := os.environ.get("OUT"):
            shutil.copy(file, out)
        print(f"wrote {file}", flush=True)


def run(command: list[str], limit: float, folder: Path, environment: dict[str, str]) -> tuple[bool, str]:
    """Whether the command succeeded within the limit, and its output. At the limit it first gets Ctrl-C, so that pytest
    writes its timings.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
            return process.returncode == 0, output
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                output, _ = process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
            return False, f"{output}\nout of time after {limit:.0f} s"


def run_step(report: Report, step: str) -> None:
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cuda"]
    if step == "doctor":
        report.step(step, [sys.executable, "-m", "wgan_fast.doctor"])
    elif step == "tests":
        in_parallel = ["-n", str(min(10, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
        report.step(step, [*pytest, "-p", "no:benchmark", *in_parallel, str(ROOT / "tests")], " passed")
    elif step in TIMINGS:
        timings = report.folder / f"timings-{step}.json"
        bench = [*pytest, str(ROOT / "benchmarks"), "-k", TIMINGS[step], f"--benchmark-json={timings}"]
        report.step(step, bench, " passed", XLA_PYTHON_CLIENT_PREALLOCATE="false")
    else:
        sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        exercise = [sanitizer, f"--tool={step}", *SANITIZER, sys.executable, __file__, "operators"]
        report.step(step, exercise, "0 errors", PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def main(chosen: list[str]) -> int:
    if unknown := set(chosen) - set(STEPS):
        print(f"gpu-report: expected steps of {', '.join(STEPS)}, got {', '.join(sorted(unknown))}")
        return 2
    if not torch.cuda.is_available():
        print("gpu-report: no GPU is visible to this Python's torch; nothing was run")
        return 1
    device = torch.cuda.get_device_properties(0)
    with tempfile.TemporaryDirectory() as name:
        report = Report(Path(name))
        pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", f"{name}/site"]
        built = report.step(
            "build",
            [*pip, str(ROOT)],
            WGAN_FAST_CUDA="1",
            TORCH_CUDA_ARCH_LIST=f"{device.major}.{device.minor}",
            MAX_JOBS=str(os.cpu_count()),
        )
        for step in (chosen or STEPS) if built else ():
            run_step(report, step)
    return int(not all(step["passed"] for step in report.steps.values()))


if __name__ == "__main__":
    sys.exit(operators() if sys.argv[1:] == ["operators"] else main(sys.argv[1:]))
