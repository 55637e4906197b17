"""The journal of a GPU report: a line of JSON for each finished comparison, measurement and step.

A line is written as soon as its fact is known, to every file of the journal, so a kill loses at most the
line under way. Child processes find the files in the environment. A line has a ``kind``:

- ``start``: the first. ``sources`` is a hash of the code, ``tests`` of the tests, ``commit`` its name, ``environment``
  the machine.
- ``comparison``: of ``step``, under a ``name`` unique within the step; ``passed``, and numbers or a ``message``.
- ``measurement``: the same, with an ``entry`` of ``results.py``.
- ``step``: the ``outcome`` of a step: passed, failed, or cut short (a later call goes on with it).

    python -m gpu.journal JOURNAL.jsonl [FOLDER]

makes the result file from a journal, for example from that of a report that was killed.
"""

import hashlib
import json
import os
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from results import RESULTS, ROOT, Results

FILES = "GPU_REPORT_JOURNAL"  # the environment variable that names the files
STEP = "GPU_REPORT_STEP"  # the environment variable that names the step of a child process
FAILED, CUT_SHORT = "failed", "cut short"  # and PASSED
Line = dict[str, Any]


class Journal:
    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.lines: list[Line] = []  # read at the start, and written since; not those of other processes

    @classmethod
    def of_environment(cls) -> "Journal":
        """The journal of the report that runs this process; one without files, if none does."""
        journal = cls(Path(name) for name in os.environ.get(FILES, "").split(os.pathsep) if name)
        journal.reload()
        return journal

    def begin(self, start: Line) -> bool:
        """Goes on with what the files hold of the same sources, else begins anew. Returns whether it goes on."""
        self.reload(start["sources"])
        goes_on = bool(self.lines)
        if not goes_on:
            self.lines = [start]
        self._rewrite()
        return goes_on

    def forget(self, step: str) -> None:
        self.lines = [line for line in self.lines if line.get("step") != step]
        self._rewrite()

    def _rewrite(self) -> None:
        for file in self.files:
            replacement = file.with_suffix(".new")
            replacement.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
            replacement.replace(file)

    def reload(self, sources: str | None = None) -> None:
        """Reads the lines of all files, each line once. Files of other sources are left out."""
        lines: dict[str, Line] = {}
        for file in self.files:
            of_file = read(file)
            if of_file and (sources is None or of_file[0].get("sources") == sources):
                lines |= {json.dumps(line, sort_keys=True): line for line in of_file}
        self.lines = sorted(lines.values(), key=lambda line: line["at"])

    def append(self, **line: Any) -> None:
        line = {"at": round(time.time(), 3), **line}
        text = (json.dumps(line) + "\n").encode()
        for file in self.files:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                # In one call, so that lines of several processes do not mix. No kill takes it back, so the report need
                # not wait for the disk thousands of times.
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
        self.lines.append(line)

    def of(self, step: str, *kinds: str) -> list[Line]:
        return [line for line in self.lines if line.get("step") == step and line["kind"] in kinds]

    def results(self) -> Results:
        """What a result file says of the lines that are there."""
        start = next(line for line in self.lines if line["kind"] == "start")
        steps = {line["step"]: dict(line) for line in self.lines if line["kind"] == "step"}  # the last of each
        for name, step in steps.items():
            done = self.of(name, "comparison", "measurement")
            failures = {line["name"]: line["message"] for line in done if not line["passed"]}
            step |= {"done": len(done), "failures": failures}
            for key in ("kind", "step", "at"):
                del step[key]
        entries = {
            line["name"]: line["entry"] for line in self.lines if line["kind"] == "measurement" and line["entry"]
        }
        return Results(start["environment"], start["commit"], list(entries.values()), steps)


def read(file: Path) -> list[Line]:
    """The whole lines of a file; a kill may have left a part of one."""
    found = map(_line, file.read_text().splitlines() if file.exists() else ())
    return [line for line in found if line is not None]


def _line(text: str) -> Line | None:
    try:
        return json.loads(text)
    except ValueError:
        return None


def without_paths(output: str) -> str:
    """Output without the paths of this machine, for a result file."""
    names = {sysconfig.get_path("purelib"): "site-packages", str(ROOT): ".", tempfile.gettempdir(): "tmp"}
    for path, name in (names | {str(Path.home()): "~"}).items():
        output = output.replace(path, name)
    return output


def hash_of_sources() -> str:
    """Changes with any file that a report depends on, other than tests. A checkout copied to a GPU machine may have no
    git.
    """
    tests = (ROOT / "tests").glob("*.py")
    files = [file for file in tests if not file.name.startswith("test_")]  # the benchmarks' critics
    files += [ROOT / "setup.py", ROOT / "pyproject.toml"]
    return _hash(files, "csrc", "wgan_fast", "build_support", "benchmarks")


def hash_of_tests() -> str:
    return _hash([], "tests")


def _hash(files: Iterable[Path], *folders: str) -> str:
    digest = hashlib.sha256()
    of_folders = (file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in SOURCES)
    for file in sorted([*files, *of_folders]):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


SOURCES = (".py", ".cpp", ".cu", ".cuh", ".h")


class Comparisons:
    """Runs the comparisons of a step one after the other and writes a line about each. A failed one does not stop the
    others; one that the journal holds already is not run again.
    """

    def __init__(self) -> None:
        self.journal = Journal.of_environment()
        self.step = os.environ.get(STEP, "by hand")
        self.done = {line["name"] for line in self.journal.of(self.step, "comparison")}
        self.failed = 0

    def __call__(self, name: str, compare: Callable[[], Line | None]) -> None:
        """``compare`` returns numbers worth keeping, and raises an exception if the comparison fails."""
        if name in self.done:
            return
        start = time.monotonic()
        try:
            found: Line = {"passed": True, **(compare() or {})}
        except Exception as error:
            traceback.print_exc()
            found = {"passed": False, "message": f"{type(error).__name__}: {error}"}
            self.failed += 1
        seconds = round(time.monotonic() - start, 3)
        self.journal.append(kind="comparison", step=self.step, name=name, seconds=seconds, **found)
        print(f"{'passed' if found['passed'] else 'FAILED'} {name} {seconds} s", flush=True)


def main(arguments: list[str]) -> None:
    journal = Journal([Path(arguments[0])])
    journal.reload()
    print(f"wrote {journal.results().write(Path(arguments[1]) if len(arguments) > 1 else RESULTS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
