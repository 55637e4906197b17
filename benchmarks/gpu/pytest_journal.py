"""A plugin of pytest, `-p gpu.pytest_journal`: a line of the journal for each test or benchmark; those that the journal
holds already are left out. A benchmark's line has its entry, which benchmarks/conftest.py makes.
"""

import os
from typing import Any

import pytest

from gpu.journal import STEP, Journal, without_paths

journal = Journal.of_environment()
step = os.environ.get(STEP, "by hand")
LENGTH = 2000  # characters of a message
told: set[str] = set()  # those that have a line


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = {line["name"] for line in journal.of(step, "comparison", "measurement")}
    left_out = [item for item in items if item.nodeid in done]
    items[:] = [item for item in items if item.nodeid not in done]
    config.hook.pytest_deselected(items=left_out)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        message = without_paths(report.longreprtext[-LENGTH:])
        journal.append(kind="comparison", step=step, name=report.nodeid, passed=False, message=message)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ or report.nodeid in told:  # the controller hears of it, too
        return
    properties = dict(report.user_properties)
    # The teardown of a benchmark makes its entry, and says whether all baselines ran.
    last = "teardown" if "timed" in properties else "call"
    if report.outcome == "passed" and report.when != last:
        return
    told.add(report.nodeid)
    found: dict[str, Any] = {"passed": report.outcome != "failed", "seconds": round(report.duration, 3)}
    if report.outcome == "skipped":
        found["skipped"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    elif report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        last_line = crash.message.splitlines()[:1] if crash else []
        found["message"] = without_paths("\n".join([report.longreprtext[-LENGTH:], *last_line]))
    if entry := properties.get("entry"):
        found["entry"] = entry
    journal.append(kind="measurement" if entry else "comparison", step=step, name=report.nodeid, **found)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and journal.of(step, "comparison", "measurement"):
        session.exitstatus = pytest.ExitCode.OK  # an earlier call did them all
