"""What a machine with a GPU says of this commit: build, GPU tests, memory checks, timings. `make gpu-report`.

Works offline with the Python that holds torch, and installs into a temporary folder. Every step's outcome goes to
benchmarks/results/<device>.json; a step that fails is recorded, does not stop the others, and makes the exit status 1.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from math import inf
from pathlib import Path
from typing import Any

import torch

import results
from results import ROOT

TAIL = 4000  # characters of a failed step's output that are kept
TIME_LIMIT = 240  # seconds for one step; the build may take longer
GRACE = 20  # seconds to end in, when a step is out of time
TIME_IN_ALL = 520  # seconds after the build: what comes last is cut, and says so
SANITIZER = ["--error-exitcode=9", "--launch-timeout=60", "--kernel-name", "kns=wgan_fast"]  # only our kernels


def operators() -> None:
    """Every kernel once per type, over sizes that reach each tail and alignment: what the memory checkers watch."""
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
                # Weights, gradients and averages; in the second parameter the gradient lies otherwise than the rest.
                lists = [[batch(shape, dtype, offset), tensor] for tensor in (real, fake, real.square())]
                lists[1][1] = fake.transpose(0, 1).contiguous().transpose(0, 1)
                rate, scale, found_inf = torch.tensor([0.1, 2.0, 0.0], device="cuda").unbind()
                torch.ops.wgan_fast.rmsprop_(*lists, rate, 0.99, 1e-8, 0.1, False, 0.01, scale, found_inf)
    torch.cuda.synchronize()


class Report:
    """Written anew after every step: what was found is kept, should the machine be taken away."""

    def __init__(self, folder: Path, device: Any) -> None:
        self.folder = folder
        self.device = device
        self.commit = results.commit()  # before a result makes the checkout a modified one
        self.steps: dict[str, Any] = {}
        self.ends = inf  # when there is no more time
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # ninja may be there
            "PYTHONPATH": f"{folder / 'site'}:{os.environ.get('PYTHONPATH', '')}",
        }

    def step(
        self, name: str, command: list[str], closes_with: str = "", limit: float = TIME_LIMIT, **environment: str
    ) -> bool:
        """Runs outside of the checkout, so that the package that was built is the one that is imported.

        It passes by its exit status and, since a run of tests that skips every one exits with 0, by its closing line.
        """
        print(f"== {name}", flush=True)
        start = time.monotonic()
        limit = min(limit, self.ends - start)
        try:
            if limit <= 0:
                raise TimeoutError(f"not run: the {TIME_IN_ALL} seconds are over")
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
        findings = {
            "environment": results.environment(torch.device("cuda")),
            "compute_capability": f"{self.device.major}.{self.device.minor}",
            "memory_bytes": self.device.total_memory,
            "commit": self.commit,
            "steps": self.steps,
            "benchmarks": results.gather(sorted(self.folder.glob("timings-*.json"))),
        }
        print(f"wrote {results.write(findings)}", flush=True)


def run(command: list[str], limit: float, folder: Path, environment: dict[str, str]) -> tuple[bool, str]:
    """Whether it succeeded within the limit, and its output. What is out of time is interrupted as by a user first, so
    that pytest writes down what it has timed.
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


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu-report: no GPU is visible to this Python's torch; nothing was run")
        return 1
    device = torch.cuda.get_device_properties(0)
    python = [sys.executable]
    pytest = [*python, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cuda"]
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    with tempfile.TemporaryDirectory() as name:
        report = Report(Path(name), device)
        pip = [*python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", f"{name}/site"]
        built = report.step(
            "build",
            [*pip, str(ROOT)],
            limit=600,
            WGAN_FAST_CUDA="1",
            TORCH_CUDA_ARCH_LIST=f"{device.major}.{device.minor}",
            MAX_JOBS=str(os.cpu_count()),
        )
        report.ends = time.monotonic() + TIME_IN_ALL
        if built:
            report.step("doctor", [*python, "-m", "wgan_fast.doctor"])
            report.step("tests", [*pytest, str(ROOT / "tests")], " passed")
            for tool in ("memcheck", "racecheck"):
                exercise = [sanitizer, f"--tool={tool}", *SANITIZER, *python, __file__, "operators"]
                report.step(tool, exercise, "0 errors", PYTORCH_NO_CUDA_MEMORY_CACHING="1")
            for step, selected in (
                ("critic-step", "critic_step"),
                ("benchmarks", "not critic_step"),
            ):
                bench = [
                    *pytest,
                    str(ROOT / "benchmarks"),
                    "-k",
                    selected,
                    f"--benchmark-json={name}/timings-{step}.json",
                ]
                report.step(step, bench, " passed", XLA_PYTHON_CLIENT_PREALLOCATE="false")
    return int(not all(step["passed"] for step in report.steps.values()))


if __name__ == "__main__":
    sys.exit(operators() if sys.argv[1:] == ["operators"] else main())
