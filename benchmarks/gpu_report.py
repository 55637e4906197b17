"""Checks a commit on a machine with a GPU: build, correctness, timings, memory checks. `make gpu-report`.

Needs a Python with torch, and no network; the package is installed into a folder of its own. Everything ends
GPU_REPORT_SECONDS (540) after the start; each step has a budget within that. Checks of correctness run at the same time
as each other, memory checks likewise, timings alone. The journal (gpu/journal.py) gets a line for each comparison and
measurement as soon as it is known, in build/gpu-report/ and in the folder $OUT if that is set; after each step the
result file benchmarks/results/<device>.json is made from it. So a killed report has lost one line.

Call it again to go on with what an earlier call did not reach: it reads the journals of both folders. Other sources
begin anew; where only the tests have changed, they alone do. A failed step is recorded with its message and does not
stop the others; `make gpu-report STEPS="doctor kernels"` does only these, and does them anew. Exit status: 0, every
step passed; 1, a step failed; 3, none failed and some were not reached.

`--rehearse` is for machines without a GPU: tiny sizes, and results in build/gpu-report/rehearsal/.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import results
from gpu.journal import CUT_SHORT, FAILED, FILES, STEP, Journal, hash_of_sources, hash_of_tests, without_paths
from rehearsal import REHEARSAL
from results import PASSED, ROOT

TAIL = 4000  # characters kept from the end of a failed step's output
SECONDS = "GPU_REPORT_SECONDS"
GRACE = 10.0  # seconds that a step gets to end after Ctrl-C
LEAST = 5.0  # seconds without which a step is not begun
NOT_REACHED = "not reached"
OTHERS = "not critic_step and not bandwidth and not convolution_settings and not slow"
#: Python modules that only add baselines.
OPTIONAL = {"jax": "JAX as a baseline", "xdist": "GPU tests in parallel"}
#: Of the extra "train".
EXTRA = ("lightning", "matplotlib", "ot", "PIL", "rich", "sklearn", "tensorboard", "typer", "yaml")
NEED_EXTRA = ("train*", "install", "report", "reproduce", "distances", "experiments*")  # tests
CORRECTNESS, SANITIZERS = "correctness", "sanitizers"  # groups
#: How what compute-sanitizer finds begins.
FINDING = r"^=+ (?:Invalid|Misaligned|Uninitialized|Error: Race|Warning: Race|Barrier error|Program hit|Fatal).*"
BUILD_SETTINGS = ("TORCH_CUDA_ARCH_LIST", "MAX_JOBS")


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float  #: its budget
    command: Sequence[str]
    closes_with: str = ""  #: a pattern of the last line of a success
    fails_with: str = ""  #: a pattern of a line of a failure, also where the time is over before the step ends
    compares: bool = True  #: writes lines of the journal, of which one passed at least
    group: str = ""  #: consecutive steps of one group run at the same time; a step without one runs alone
    environment: dict[str, str] = field(default_factory=dict)


def steps(site: Path, rehearsed: bool) -> list[Step]:
    """All of them, in the order of what is worth most: a killed report has lost the last ones."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-p", "gpu.pytest_journal", "-p", "no:cacheprovider", "-m", "cuda and not long"]
    pytest += ["-p", "computing"] if rehearsed else []

    def check(name: str, seconds: float) -> Step:
        return Step(name, seconds, [python, "-m", "gpu.checks", name], group=CORRECTNESS)

    def bench(name: str, seconds: float, selection: str) -> Step:
        command = [*pytest, str(ROOT / "benchmarks"), "-k", selection]
        return Step(name, seconds, command, environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})

    def sanitizer(tool: str) -> Step:
        program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        options = [f"--tool={tool}", "--error-exitcode=9", "--launch-timeout=60", "--kernel-name", "kns=wgan_fast"]
        if tool == "memcheck":  # calls that fail are not ours: PyTorch and its libraries try some
            options += ["--report-api-errors=no"]
        command = [program, *options, python, "-m", "gpu.every_kernel"]
        # Each tensor is a block of memory then, whose bounds are known.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        return Step(tool, 150, command, r"\b0 errors", FINDING, group=SANITIZERS, environment=environment)

    # A rehearsal selects tests and timings that end soon.
    tests = [str(ROOT / "tests" / "test_optim.py"), "-k", "RMSprop"] if rehearsed else [str(ROOT / "tests")]
    tests += [f"--ignore-glob=*/test_{name}.py" for name in NEED_EXTRA] if missing(EXTRA) else []
    # Beside the other checks; more would wait for one another while they import torch.
    workers = ["-n", str(min(8, (os.cpu_count() or 1) // 2))] if importlib.util.find_spec("xdist") else []
    tests = [*pytest, "-p", "no:benchmark", "--continue-on-collection-errors", *workers, *tests]
    device = torch.cuda.get_device_properties(0)
    pip = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    pip += ["--upgrade", "--target", str(site)]
    settings = {
        "WGAN_FAST_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": f"{device.major}.{device.minor}",
        "MAX_JOBS": str(os.cpu_count()),
        # Settings of an earlier build compile nothing.
        **({name: os.environ[name] for name in BUILD_SETTINGS if name in os.environ} if rehearsed else {}),
    }
    every = [
        Step("build", 300, [*pip, str(ROOT)], compares=False, environment=settings),
        Step("doctor", 30, [python, "-m", "wgan_fast.doctor"], compares=False),
        *(check(name, 120) for name in ("references", "graphs", "refused-captures", "memory", "precision", "nccl")),
        Step("tests", 200, tests, group=CORRECTNESS),
        bench("kernels", 60, "bandwidth"),
        bench("toy", 110, "critic_step and toy"),
        bench("dcgan-64", 90, "critic_step and dcgan-64"),
        bench("resnet", 110, "critic_step and resnet" + " and (graph or bfloat16)" * rehearsed),
        bench("convolutions", 110, "convolution_settings" + " and dcgan" * rehearsed),
        bench("others", 80, "gradient_penalty and tiny" if rehearsed else OTHERS),
        *map(sanitizer, ("memcheck", "racecheck", "initcheck", "synccheck")),
    ]
    return [replace(step, seconds=5 * step.seconds) for step in every] if rehearsed else every  # on a busy CPU


class Report:
    def __init__(self, folder: Path, rehearsed: bool) -> None:
        self.ends = time.monotonic() + float(os.environ.get(SECONDS, "540"))
        self.folder, self.rehearsed = folder, rehearsed
        self.site = folder / "site"
        # What lies under $OUT comes back from a machine that is lent.
        self.out = [folder, *([Path(os.environ["OUT"])] if os.environ.get("OUT") else [])]
        for place in self.out:
            place.mkdir(parents=True, exist_ok=True)
        self.log = self.out[-1] / "gpu-report.log"
        self.journal = Journal(place / "gpu-report.jsonl" for place in self.out)
        self.sources, tests = hash_of_sources(), hash_of_tests()
        #: What a built package fits.
        self.built_for = f"{self.sources} {sys.version} {torch.__version__} {torch.cuda.get_device_capability()}"
        start = {
            "kind": "start",
            "at": round(time.time(), 3),
            "sources": self.sources,
            "tests": tests,
            "commit": results.commit(),  # before a result file modifies the checkout
            "environment": results.environment(torch.device("cuda")),
            "missing": [OPTIONAL[module] for module in missing(OPTIONAL)]
            + [f"{', '.join(missing(EXTRA))}, with the tests that need them"] * bool(missing(EXTRA)),
        }
        self.goes_on = self.journal.begin(start)
        if self.journal.lines[0]["tests"] != tests:
            self.journal.lines[0]["tests"] = tests
            self.journal.forget("tests")
        paths = [str(self.site), *(str(ROOT / folder) for folder in ("tests", "benchmarks"))]
        # A stand-in for CUDA has a build of the package of its own.
        given = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # ninja may be there
            "PYTHONPATH": os.pathsep.join([*given, *paths] if rehearsed else [*paths, *given]),
            FILES: os.pathsep.join(str(file) for file in self.journal.files),
            **({REHEARSAL: "1"} if rehearsed else {}),
        }

    def outcome(self, step: str) -> str:
        lines = self.journal.of(step, "step")
        return lines[-1]["outcome"] if lines else NOT_REACHED

    def remains(self, step: str) -> bool:
        """Whether an earlier call left something of it to do. The package that one built may be on another machine."""
        stamp = self.folder / "built"
        if step == "build":
            return not (stamp.exists() and stamp.read_text() == self.built_for)
        return self.outcome(step) in (NOT_REACHED, CUT_SHORT)

    def run(self, steps: Sequence[Step]) -> None:
        """Runs steps at the same time, and writes what came of each as soon as it has ended."""
        running: list[Child] = []
        try:
            for step in steps:
                limit = min(step.seconds, self.ends - time.monotonic() - GRACE)
                if limit < min(LEAST, step.seconds):
                    print(f"== {step.name} {NOT_REACHED}", flush=True)
                    continue
                print(f"== {step.name}, up to {limit:.0f} s", flush=True)
                running.append(Child(step, self.folder, {**self.environment, **step.environment}, limit))
            while running:
                time.sleep(0.05)
                for child in [child for child in running if child.ended()]:
                    running.remove(child)
                    self.judge(child)
        finally:
            for child in running:
                child.kill()

    def judge(self, child: "Child") -> None:
        step, status, output = child.step, child.process.returncode, child.output()
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(step.command)}\n{output}")
        self.journal.reload()
        found = self.journal.of(step.name, "comparison", "measurement")
        closing = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        failures = [line["name"] for line in found if not line["passed"]]
        if step.fails_with and (finding := re.search(step.fails_with, output, re.MULTILINE)):
            outcome, message = FAILED, finding[0]
        elif child.out_of_time:
            # Where all of the time was over, the step may need no more than what is left.
            outcome, message = CUT_SHORT, f"out of time after {child.limit:.0f} s of {step.seconds:.0f} s"
        elif status != 0:
            outcome, message = FAILED, f"exit status {status}"
        elif failures:
            outcome, message = FAILED, f"failed: {', '.join(failures)}"
        elif step.compares and not any(line["passed"] and "skipped" not in line for line in found):
            outcome, message = FAILED, "nothing was compared or measured"
        elif not re.search(step.closes_with, closing):
            outcome, message = FAILED, f"the last line has no {step.closes_with!r}"
        else:
            outcome, message = PASSED, ""
        seconds, tail = child.seconds, {"message": message, "output": output[-TAIL:]} if message else {}
        self.journal.append(
            kind="step", step=step.name, outcome=outcome, seconds=round(seconds, 1), closing_line=closing, **tail
        )
        if step.name == "build" and outcome == PASSED:
            (self.folder / "built").write_text(self.built_for)
        if message:
            print(f"{output[-TAIL:]}\n{message}")
        print(f"== {step.name} {outcome} in {seconds:.0f} s: {closing}", flush=True)
        self.write()

    def write(self) -> None:
        found = self.journal.results()
        folders = self.out if self.rehearsed else [results.RESULTS, *self.out[1:]]
        print("wrote", *(found.write(folder) for folder in folders), flush=True)


class Child:
    """The process of a step. It runs outside of the checkout, so that the package just built is imported."""

    def __init__(self, step: Step, folder: Path, environment: dict[str, str], limit: float) -> None:
        self.step, self.limit = step, limit
        self.log = folder / f"{step.name}.log"
        self.start = time.monotonic()
        self.seconds = 0.0
        self.out_of_time = False
        with self.log.open("wb") as log:
            # A session of its own, so that its children end with it; it ends with this process, however that ends.
            self.process = subprocess.Popen(
                ["env", *step.command],  # a missing program is the step's failure, not the report's
                cwd=folder,
                env={**environment, STEP: step.name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def ended(self) -> bool:
        """Whether it has ended; one whose time is over is ended."""
        self.seconds = time.monotonic() - self.start
        if self.process.poll() is None and self.seconds < self.limit:
            return False
        if self.process.returncode is None:
            self.out_of_time = True
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self.kill()
        return True

    def kill(self) -> None:
        """With its own children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def output(self) -> str:
        """What it printed. The end of a failure goes into a result file."""
        return without_paths(self.log.read_text(errors="replace"))


def missing(modules: Iterable[str]) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


def end_with_parent() -> None:
    """The kernel kills this process when its parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def summary(report: Report, names: Sequence[str]) -> int:
    report.journal.reload()
    outcomes = {name: report.outcome(name) for name in names}
    for line in report.journal.lines:
        if line.get("passed") is False:
            print(f"FAILED {line['step']}: {line['name']}: {line['message'].strip().splitlines()[-1]}")
        elif "skipped" in line and line["kind"] == "comparison" and line["step"] != "tests":
            print(f"skipped {line['step']}: {line['name']}: {line['skipped']}")
    for what in report.journal.lines[0]["missing"]:
        print(f"missing, and not a failure: {what}")
    for outcome in (PASSED, FAILED, CUT_SHORT, NOT_REACHED):
        if of_it := [name for name in names if outcomes[name] == outcome]:
            print(f"{outcome}: {', '.join(of_it)}")
    if FAILED in outcomes.values():
        return 1
    return 0 if set(outcomes.values()) == {PASSED} else 3


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("gpu-report", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these, anew")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, results in the build folder")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "gpu-report", help="of journal and package")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu-report: no GPU is visible to this Python's torch; nothing was run")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended, too
    folder = options.folder.resolve()
    every = steps(folder / "site", options.rehearse)
    names = [step.name for step in every]
    if unknown := set(options.steps) - set(names):
        print(f"gpu-report: expected steps of {', '.join(names)}, got {', '.join(sorted(unknown))}")
        return 2
    report = Report(folder, options.rehearse)
    print("going on with an earlier report" if report.goes_on else "a new report", flush=True)
    report.write()
    chosen = [name for name in names if name in options.steps] or names
    for name in options.steps:
        report.journal.forget(name)
    for _, group in itertools.groupby(every, lambda step: step.group or step.name):
        report.run([step for step in group if step.name in ["build", *chosen] and report.remains(step.name)])
        if report.remains("build"):
            break  # the others would import another package, or none
    return summary(report, chosen)


if __name__ == "__main__":
    sys.exit(main())
