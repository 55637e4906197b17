"""What a result file holds: where it was measured, and of each benchmark what was timed and counted.

    python benchmarks/results.py TIMINGS.json ...

turns pytest-benchmark's files into ``benchmarks/results/<device>.json``.
"""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def environment(device: torch.device) -> dict[str, Any]:
    """What a timing depends on, beside the code."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allows_tf32": torch.backends.cudnn.allow_tf32 if on_gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "jax": version("jax") if importlib.util.find_spec("jax") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str | None:
    """The commit that is checked out, and whether it was changed since."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
        except OSError:  # there is no git
            return ""

    name = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{name}{'-modified' if changes else ''}" if name else os.environ.get("COMMIT")


def gather(timings: Iterable[Path]) -> list[dict[str, Any]]:
    """The benchmarks of pytest-benchmark's files; of two that are the same the last one counts."""
    benchmarks = [
        entry for file in timings if file.stat().st_size for entry in json.loads(file.read_text())["benchmarks"]
    ]
    found = {
        entry["name"]: {
            "suite": entry["name"].partition("[")[0].removeprefix("bench_"),
            "case": entry["params"] or {},
            "rounds": entry["stats"]["rounds"],
            **entry["extra_info"],
        }
        for entry in benchmarks
    }
    return list(found.values())


def write(findings: dict[str, Any]) -> Path:
    """Into the file that is named after the device."""
    name = re.sub(r"[^a-z0-9]+", "-", findings["environment"]["device"].lower()).strip("-")
    file = RESULTS / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(findings, indent=1) + "\n")
    return file


def main() -> None:
    files = [Path(name) for name in sys.argv[1:]]
    findings = {
        "environment": environment(torch.device("cpu")),
        "commit": ", ".join(dict.fromkeys(str(json.loads(file.read_text())["commit"]) for file in files)),
        "benchmarks": gather(files),
    }
    print(f"wrote {write(findings)}")


if __name__ == "__main__":
    main()
