"""The GPU report rehearsed from its start to a complete result file, with kills and planted failures."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from stand_in import logged, needed

from wgan_fast._library import extension

pytestmark = needed
ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
REHEARSAL = "GPU_REPORT_REHEARSAL"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the report as in a rehearsal."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv(REHEARSAL, "1")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def checks(module: Any) -> ModuleType:
    return module("gpu.checks")


@pytest.fixture
def lines(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a function of gpu/checks.py, and returns the lines about comparisons that failed."""
    monkeypatch.setenv("GPU_REPORT_JOURNAL", str(tmp_path / "journal.jsonl"))

    def run(check: Any) -> list[dict[str, Any]]:
        journal = module("gpu.journal")
        check(journal.Comparisons())
        return [line for line in journal.read(tmp_path / "journal.jsonl") if not line["passed"]]

    return run


def test_references_find_a_wrong_operator(checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.reference.interpolate

    def wrong(real: torch.Tensor, fake: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return right(real, fake, t) * (1 + 1e-4 * (real.dtype == torch.float64))

    monkeypatch.setattr(checks.reference, "interpolate", wrong)
    failed = {line["name"].split()[0] for line in lines(checks.references)}
    assert failed == {"interpolate"}


def test_references_find_what_is_not_written(checks: ModuleType) -> None:
    assert not checks.error(torch.tensor([1.0, torch.nan]), torch.ones(2)) <= 1e9


def test_graphs_find_another_update(checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = checks.CriticStep

    def other(critic: Any, optimizer: Any, *, backend: str, **settings: Any) -> Any:
        for group in optimizer.param_groups:
            group["lr"] *= 1 + (backend == "graph")
        return made(critic, optimizer, backend=backend, **settings)

    monkeypatch.setattr(checks, "CriticStep", other)
    assert len(lines(checks.graphs)) == 5


def test_memory_finds_a_leak(checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = []
    monkeypatch.setattr(checks.CriticStep, "__repr__", lambda step: "")
    call = checks.CriticStep.__call__
    leaks = lambda *args: (leaked.append(torch.empty(100, device="cuda")), call(*args))[1]  # noqa: E731
    monkeypatch.setattr(checks.CriticStep, "__call__", leaks)
    assert len(lines(checks.memory)) == 2


def test_refused_captures_find_one_that_is_not_refused(
    checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.ReadsWhileCaptured, "forward", lambda critic, x: critic.critic(x))
    assert all("was not refused" in line["message"] for line in lines(checks.refused_captures))


def test_precision_finds_a_wrong_penalty(checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.our_loss
    monkeypatch.setattr(checks, "our_loss", lambda *args: 1.5 * right(*args))
    assert len(lines(checks.precision)) == 4


def test_nccl_finds_a_wrong_reduction(checks: ModuleType, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reduce = checks.dist.all_reduce
    monkeypatch.setattr(checks.dist, "all_reduce", lambda x, *a, **k: (reduce(x, *a, **k), x.add_(1))[0])
    assert len(lines(checks.nccl)) == 2
    assert not checks.dist.is_initialized()


def kernels_of_the_extension() -> dict[str, str]:
    """Address in the file -> such as interpolate_kernel<4, float>."""
    symbols = subprocess.run(["nm", "-C", extension.__file__], capture_output=True, text=True, check=True).stdout
    # A lambda or a clone of a kernel has a longer name; a template's begins with the type that it returns.
    pattern = r"^0*([0-9a-f]+) \w (?:void )?(?:wgan_fast::)?\(anonymous namespace\)::(\w+_kernel(?:<[^()]*>)?)\(.*\)$"
    return dict(re.findall(pattern, symbols, re.MULTILINE))


def test_every_kernel_is_reached(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that were compiled are launched, for each type, alignment and length of rows."""
    with logged() as entries:
        assert module("gpu.every_kernel").main() == 0
    launched = {entry.name.removeprefix("wgan_fast+") for entry in entries}
    known = kernels_of_the_extension()
    assert len(known) > 60
    assert sorted(name for address, name in known.items() if address not in launched) == []


FAILING = """
import pytest

def test_right(): pass
def test_wrong(): assert 1 == 2, "of the test"
def test_skipped(): pytest.skip("another time")

def bench_with_a_wrong_baseline(compare):
    def wrong(): raise ValueError("of the baseline")
    compare(lambda: None, right=lambda: None, wrong=wrong)
"""


class TestSteps:
    """The report with steps of its own in place of the real ones."""

    @pytest.fixture
    def outcome(self, module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        report = module("gpu_report")
        monkeypatch.setattr(report, "GRACE", 1.0)

        def run(code: str, seconds: float = 100, total: float = 200, **settings: Any) -> tuple[int, dict[str, Any]]:
            step = report.Step("one", seconds, [sys.executable, "-c", code], **settings)
            monkeypatch.setattr(report, "steps", lambda *_: [step])
            monkeypatch.setenv(report.SECONDS, str(total))
            status = report.main(["--rehearse", "--folder", str(tmp_path)])
            return status, json.loads((tmp_path / "stand-in.json").read_text()).get("steps", {}).get("one", {})

        return run

    LINE = "from gpu.journal import Comparisons; run = Comparisons(); "

    def test_passes(self, outcome: Any) -> None:
        status, found = outcome(self.LINE + "run('a', lambda: {'error': 1.0})")
        assert status == 0 and found["outcome"] == "passed" and found["done"] == 1

    def test_fails(self, outcome: Any) -> None:
        status, found = outcome(self.LINE + "run('a', lambda: {}); run('b', lambda: 1 / 0)")
        assert status == 1 and found["failures"] == {"b": "ZeroDivisionError: division by zero"}

    def test_tests_and_baselines_fail(self, outcome: Any, tmp_path: Path) -> None:
        """Each by itself; what passed is kept."""
        file = tmp_path / "test_failing.py"
        file.write_text(FAILING)
        (tmp_path / "conftest.py").symlink_to(BENCHMARKS / "conftest.py")
        arguments = ["-q", "-p", "gpu.pytest_journal", "-o", "python_functions=test_* bench_*", "-k", "not cpu"]
        status, found = outcome(f"import pytest; raise SystemExit(pytest.main({[*arguments, str(file)]!r}))")
        baseline, wrong = (found["failures"][name] for name in sorted(found["failures"]))
        assert status == 1 and found["done"] == 4 and "of the test" in wrong
        assert "wrong: ValueError: of the baseline" in baseline

    @pytest.mark.parametrize("failing", ["build", "others"])
    def test_every_step_fails(self, module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str) -> None:
        """None stops the others, but for a build: the others would import another package, or none."""
        report = module("gpu_report")
        every = report.steps(tmp_path, True)
        fails, builds = [sys.executable, "-c", "raise SystemExit(1)"], [sys.executable, "-c", "pass"]
        commands = {step.name: builds if failing == "others" and step.name == "build" else fails for step in every}
        planted = [replace(step, command=commands[step.name], environment={}) for step in every]
        monkeypatch.setattr(report, "steps", lambda *_: planted)
        assert report.main(["--rehearse", "--folder", str(tmp_path)]) == 1
        steps = json.loads((tmp_path / "stand-in.json").read_text())["steps"]
        failed = [name for name, step in steps.items() if step["outcome"] == "failed"]
        assert failed == (["build"] if failing == "build" else [step.name for step in every[1:]])

    def test_crashes(self, outcome: Any) -> None:
        status, found = outcome("print('before'); import os; os.abort()")
        assert status == 1 and "exit status -6" in found["message"] and "before" in found["output"]

    def test_compares_nothing(self, outcome: Any) -> None:
        status, found = outcome("pass")
        assert status == 1 and "nothing was compared" in found["message"]

    def test_does_not_close(self, outcome: Any) -> None:
        status, found = outcome("print('10 errors')", compares=False, closes_with=r"\b0 errors")
        assert status == 1 and found["outcome"] == "failed"

    def test_finds_an_error_before_its_time_is_over(self, outcome: Any, module: Any) -> None:
        """A later call goes on behind it."""
        finding = "========= Invalid __global__ write of size 4 bytes"
        code = self.LINE + f"run('a', lambda: print({finding!r}, flush=True)); import time; time.sleep(60)"
        status, found = outcome(code, seconds=6, fails_with=module("gpu_report").FINDING)
        assert status == 1 and found["message"] == finding

    def test_steps_of_a_group_run_at_the_same_time(self, module: Any, monkeypatch: Any, tmp_path: Path) -> None:
        """Each waits for a file that the other one writes."""
        report = module("gpu_report")

        def meets(name: str, other: str) -> Any:
            code = f"open('{name}', 'w'); import os, time\nwhile not os.path.exists('{other}'): time.sleep(0.01)"
            return report.Step(name, 60, [sys.executable, "-c", code], compares=False, group="both")

        monkeypatch.setattr(report, "steps", lambda *_: [meets("one", "two"), meets("two", "one")])
        assert report.main(["--rehearse", "--folder", str(tmp_path)]) == 0

    def test_changed_tests_alone_run_anew(self, module: Any, monkeypatch: Any, tmp_path: Path) -> None:
        report = module("gpu_report")
        build = report.Step("build", 60, [sys.executable, "-c", "pass"], compares=False)
        ran = [replace(build, name=name, command=["touch", str(tmp_path / name)]) for name in ("kernels", "tests")]
        monkeypatch.setattr(report, "steps", lambda *_: [build, *ran])
        for tests in ("these", "those"):
            monkeypatch.setattr(report, "hash_of_tests", lambda tests=tests: tests)
            assert report.main(["--rehearse", "--folder", str(tmp_path)]) == 0
            found = {name for name in ("kernels", "tests") if (tmp_path / name).exists()}
            assert found == ({"kernels", "tests"} if tests == "these" else {"tests"})
            for name in found:
                (tmp_path / name).unlink()

    def test_paths_of_the_checkout_are_left_out(self, outcome: Any) -> None:
        status, found = outcome(f"print({str(ROOT / 'tests')!r}); raise SystemExit(1)")
        assert status == 1 and str(ROOT) not in found["output"] and "./tests" in found["output"]

    def test_is_not_reached(self, outcome: Any) -> None:
        assert outcome("pass", total=0.1) == (3, {})

    def test_resumes(self, outcome: Any) -> None:
        """What was compared before the time was over is not compared again, nor is a finished step."""
        slow = "import time; run('b', lambda: time.sleep(60))"
        status, found = outcome(self.LINE + "run('a', lambda: {}); " + slow, seconds=6)
        assert status == 3 and found["outcome"] == "cut short" and found["done"] == 1
        status, found = outcome(self.LINE + "run('a', lambda: 1 / 0); run('b', lambda: {})")
        assert status == 0 and found["done"] == 2
        assert outcome("raise SystemExit(1)")[0] == 0


def rehearsal(folder: Path, out: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_report.py"), "--rehearse", "--folder", str(folder)]
    path = f"{Path(__file__).parent / 'bin'}:{os.environ['PATH']}"  # a stand-in for compute-sanitizer
    settings = {**os.environ, "PATH": path, "OUT": str(out), "GPU_REPORT_SECONDS": "3000", **environment}
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_then_resumed_to_a_complete_file(tmp_path: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out"
    out.mkdir()
    journal = out / "gpu-report.jsonl"

    def whole_lines() -> list[dict]:
        text = journal.read_text() if journal.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]

    def has_begun() -> bool:
        return any(line.get("step") == "references" for line in whole_lines())

    first = rehearsal(folder, out)
    while first.poll() is None and not has_begun():
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    printed, _ = first.communicate()
    assert has_begun(), printed
    before = whole_lines()
    # The machine is another one: nothing is left but $OUT. One tool now finds an error.
    (folder / "gpu-report.jsonl").unlink()
    second = rehearsal(folder, out, PLANTED_ERROR="racecheck")
    printed, _ = second.communicate()
    assert second.returncode == 1, printed
    after = [json.loads(line) for line in journal.read_text().splitlines()]
    names = [(line["step"], line["name"]) for line in after if "name" in line]
    assert after[: len(before)] == before and len(set(names)) == len(names)
    result = json.loads((out / "stand-in.json").read_text())
    outcomes = {name: step["outcome"] for name, step in result["steps"].items()}
    assert outcomes.pop("racecheck") == "failed", printed
    assert set(outcomes.values()) == {"passed"} and len(outcomes) == 18, printed
    suites = {entry["suite"] for entry in result["benchmarks"]}
    assert suites == {"bandwidth", "critic_step", "convolution_settings", "gradient_penalty"}
