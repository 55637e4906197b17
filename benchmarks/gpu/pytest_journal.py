"""A plugin of pytest, `-p gpu.pytest_journal`: a line of the journal for each test or benchmark; those that the journal
holds already are left out. A benchmark's line has its entry, which benchmarks/conftest.py makes.
"""

import os
from typing import Any

import pytest

from gpu.journal import STEP, Journal

journal = Journal.of_environment()
step = os.environ.get(STEP, "by hand")
LENGTH = 2000  # characters of a message


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = {line["name"] for line in journal.of(step, "comparison", "measurement")}
    left_out = [item for item in items if item.nodeid in done]
    items[:] = [item for item in items if item.nodeid not in done]
    config.hook.pytest_deselected(items=left_out)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        message = report.longreprtext[-LENGTH:]
        journal.append(kind="comparison", step=step, name=report.nodeid, passed=False, message=message)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # the controller hears of it, too
        return
    entry = dict(report.user_properties).get("entry")
    if entry and report.when == "call" and report.outcome == "passed":
        return  # the teardown says whether all baselines ran
    if report.when == "call" or report.outcome != "passed" or entry:
        found: dict[str, Any] = {"passed": report.outcome != "failed", "seconds": round(report.duration, 3)}
        if report.outcome == "skipped":
            found["skipped"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        elif report.outcome == "failed":
            found["message"] = report.longreprtext[-LENGTH:]
        kind = "measurement" if entry else "comparison"
        journal.append(kind=kind, step=step, name=report.nodeid, **found, **({"entry": entry} if entry else {}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and journal.of(step, "comparison", "measurement"):
        session.exitstatus = pytest.ExitCode.OK  # an earlier call did them all
