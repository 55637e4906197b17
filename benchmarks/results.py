"""The format of ``benchmarks/results/<device>.json``: the only module that reads or writes it.

    python benchmarks/results.py TIMINGS.json ...

converts pytest-benchmark's files. A result file holds the ``environment``, the ``commit``, the ``steps`` of a GPU
report with the ``outcome`` of each, and ``benchmarks``: a list of entries, each with

- ``suite``: the benchmark function's name without ``bench_``; ``case``: its parameters; ``rounds``;
- ``seconds``: provider -> the quartiles of its times, where the provider ``ours`` is this library, ``forward`` one
  forward of the critic, and ``products`` the matrix products and convolutions of ours alone;
- optional ``calls``: consecutive calls of a round, of which ``seconds`` has the time of one;
- optional counts, provider -> number: ``peak_bytes``, ``forwards`` (operations, in forwards of the critic),
  ``all_reduce_bytes``;
- optional bandwidth of ours: ``bytes``, ``GB/s``, ``percent_of_copy``.
"""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch  # takes seconds, and a journal does without

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PASSED = "passed"  # the outcome of a step of a GPU report
Entry = dict[str, Any]
UNIT = "forward"  # the provider of one forward of the critic: a unit of time, not a baseline
LIMIT = "products"  # that of the products of ours alone: what ours cannot be faster than
#: Key of an entry -> the word for it. For all of them less is better.
COMPARED = {"seconds": "time", "peak_bytes": "peak memory", "forwards": "operations"}


@dataclass(frozen=True)
class Results:
    """The content of one result file."""

    environment: dict[str, Any]
    commit: str | None
    entries: list[Entry]
    steps: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Results":
        found = json.loads(file.read_text())
        entries = [entry for entry in found["benchmarks"] if "seconds" in entry]
        return cls(found["environment"], found["commit"], entries, found.get("steps", {}))

    def write(self, folder: Path | None = None) -> Path:
        """Writes the file named after the device into ``folder``, RESULTS if None, and returns its path."""
        name = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")
        file = (folder or RESULTS) / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        content = {"environment": self.environment, "commit": self.commit}
        if self.steps:
            content["steps"] = self.steps
        file.write_text(json.dumps(content | {"benchmarks": self.entries}, indent=1) + "\n")
        return file

    def select(self, suite: str, **case: Any) -> list[Entry]:
        return [entry for entry in self.entries if entry["suite"] == suite and case.items() <= entry["case"].items()]

    @property
    def device(self) -> str:
        return self.environment["device"]

    @property
    def on_gpu(self) -> bool:
        return any(entry["case"].get("device") == "cuda" for entry in self.entries)


def value(entry: Entry, provider: str, what: str = "seconds") -> float | None:
    """The provider's median time, or its count of ``what``."""
    found = entry.get(what, {}).get(provider)
    return found[1] if what == "seconds" and found else found


def ratio(entry: Entry, baseline: str, what: str = "seconds") -> float | None:
    """The baseline's value divided by ours: above 1, ours is better."""
    theirs, ours = value(entry, baseline, what), value(entry, "ours", what)
    return theirs / ours if theirs and ours else None


def apart(entry: Entry, baseline: str) -> bool:
    """Whether the interquartile ranges of ours and of the baseline are disjoint."""
    (low, _, high), (other_low, _, other_high) = entry["seconds"]["ours"], entry["seconds"][baseline]
    return high < other_low or other_high < low


def baselines(entries: Iterable[Entry], what: str = "seconds") -> list[str]:
    providers = dict.fromkeys(name for entry in entries for name in entry.get(what, {}))
    return [name for name in providers if name not in ("ours", UNIT, LIMIT)]


def environment(device: "torch.device") -> dict[str, Any]:
    """What a timing depends on besides the code."""
    import torch

    on_gpu = device.type == "cuda"
    gpu = torch.cuda.get_device_properties(device) if on_gpu else None
    of_gpu = {"compute_capability": f"{gpu.major}.{gpu.minor}", "memory_bytes": gpu.total_memory} if gpu else {}
    return {
        "device": gpu.name if gpu else f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allows_tf32": torch.backends.cudnn.allow_tf32 if on_gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "jax": version("jax") if importlib.util.find_spec("jax") else None,
        "system": f"{platform.system()} {platform.machine()}",
        **of_gpu,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str | None:
    """The commit that is checked out; ``-modified`` follows where files differ from it. None: unknown."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
        except OSError:  # there is no git
            return ""

    name = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{name}{'-modified' if changes else ''}" if name else os.environ.get("COMMIT")


def gather(timings: Iterable[Path]) -> list[Entry]:
    """The entries of pytest-benchmark's files; a later one replaces an earlier one of the same name."""
    benchmarks = [
        entry for file in timings if file.stat().st_size for entry in json.loads(file.read_text())["benchmarks"]
    ]
    found = {
        entry["name"]: made(entry["name"], entry["params"], entry["stats"]["rounds"], entry["extra_info"])
        for entry in benchmarks
    }
    return list(found.values())


def made(name: str, case: dict[str, Any] | None, rounds: int, extra_info: dict[str, Any]) -> Entry:
    """The entry of the benchmark that pytest calls ``name``."""
    return {"suite": name.partition("[")[0].removeprefix("bench_"), "case": case or {}, "rounds": rounds, **extra_info}


def main() -> None:
    import torch

    files = [Path(name) for name in sys.argv[1:]]
    commits = dict.fromkeys(str(json.loads(file.read_text())["commit"]) for file in files)
    print(f"wrote {Results(environment(torch.device('cpu')), ', '.join(commits), gather(files)).write()}")


if __name__ == "__main__":
    main()
