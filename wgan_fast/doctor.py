"""Diagnosis of an installation, and remedies: ``wgan-fast doctor [--json]``.

:func:`diagnose` depends on :class:`Facts` alone, so tests can describe any machine. Works where torch cannot be
imported.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import wgan_fast

__all__ = ["Facts", "Finding", "collect", "diagnose", "main", "report"]


@dataclass(frozen=True)
class Facts:
    """The input of :func:`diagnose`."""

    torch: str | None  #: its version, such as 2.13.0+cpu; None where it cannot be imported
    torch_cuda: str | None  #: the CUDA version that torch was built with
    gpus: tuple[tuple[str, str], ...]  #: name and compute capability of each visible GPU
    package: str  #: the folder that wgan_fast was imported from
    build: dict[str, Any] | None  #: ``_C.build_info()``; None without the extension
    failure: str | None = None  #: why the extension could not be loaded
    torch_failure: str | None = None  #: why torch could not be imported
    build_failure: str | None = None  #: why the extension could not be compiled, as recorded by setup.py
    built_for: str | None = None  #: the torch that the extension was built for, as recorded by setup.py
    debug: bool = False  #: whether it was compiled with DEBUG=1, without optimisation
    wheel_for: tuple[str, ...] = ()  #: in a wheel of several extensions: the minor versions of torch that it serves
    cuda_left_out: str | None = None  #: why the CUDA kernels were not compiled, as recorded by setup.py
    elsewhere: str | None = None  #: another wgan_fast on sys.path, which has an extension
    driver: str | None = None  #: the version of the GPU driver
    reinstall: str = "pip install --force-reinstall --no-deps --no-cache-dir ."  #: the command that rebuilds it


@dataclass(frozen=True)
class Finding:
    """A line of the report. ``remedy`` is None for a note that is no problem."""

    problem: str
    remedy: str | None = None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _runs_on(architectures: list[str], capability: str) -> bool:
    """Machine code runs on later minor versions of its architecture; PTX runs on every later GPU."""
    gpu = _minor(capability)
    for name in architectures:
        if re.fullmatch(r"\d+\.\d+(\+PTX)?", name):
            built = _minor(name)
            if built <= gpu and (built[0] == gpu[0] or name.endswith("+PTX")):
                return True
        elif re.fullmatch(r"\d+\.\d+[af]", name) and _minor(name) == gpu:  # 9.0a runs on 9.0 alone
            return True
    return False


def diagnose(facts: Facts) -> list[Finding]:
    """The problems and notes about an installation, with remedies."""
    build = facts.build
    rebuild = f"build it for this PyTorch: {facts.reinstall}"
    if facts.torch is None:
        wanted = " or ".join(facts.wheel_for) or "2.11 or later"
        remedy = f"install PyTorch {wanted} (https://pytorch.org/get-started/locally/)"
        served = facts.wheel_for or (facts.built_for and not facts.build_failure)
        again = "" if served else f", then {facts.reinstall}"
        return [Finding(f"PyTorch cannot be imported: {facts.torch_failure}", remedy + again)]
    if build is None:
        if facts.elsewhere:
            return [
                Finding(
                    f"wgan_fast is imported from {facts.package}, which holds no extension; the one with the extension "
                    f"is {facts.elsewhere}",
                    "run Python from another folder, or build in place: pip install -e .",
                )
            ]
        if facts.build_failure:
            return [
                Finding(
                    f"the extension was not compiled: {facts.build_failure}",
                    f"fix that (a C++ compiler such as g++ must be installed), then {facts.reinstall}",
                )
            ]
        if facts.wheel_for and not facts.built_for:
            rebuild = f"install PyTorch {' or '.join(facts.wheel_for)}, or {rebuild}"
        return [Finding(f"the extension could not be loaded: {facts.failure}", rebuild)]
    findings = []
    if facts.debug:
        findings.append(Finding("the extension is a debug build (DEBUG=1), which is slow"))
    if _minor(build["torch"]) != _minor(facts.torch):
        findings.append(
            Finding(f"the extension was built for torch {build['torch']}, and this is {facts.torch}", rebuild)
        )
    if build["cuda"] is None:
        why = facts.cuda_left_out or "the CUDA kernels were not built"
        if facts.gpus and "WGAN_FAST_CUDA=0" not in why:
            remedy = (
                f"install a CUDA toolkit with nvcc for CUDA {facts.torch_cuda}, then WGAN_FAST_CUDA=1 {facts.reinstall}"
            )
            findings.append(Finding(f"there is a GPU, but only CPU kernels: {why}", remedy))
        elif facts.torch_cuda:
            findings.append(Finding(f"CPU kernels only: {why}"))
        return findings
    if facts.torch_cuda is None:
        findings.append(Finding("the CUDA kernels are built, but this torch is a build without CUDA"))
    for name, capability in facts.gpus:
        if not _runs_on(build["cuda_architectures"], capability):
            built_for = ", ".join(build["cuda_architectures"])
            remedy = f'TORCH_CUDA_ARCH_LIST="{capability}" {facts.reinstall}'
            findings.append(Finding(f"the kernels were built for {built_for}, and {name} is {capability}", remedy))
    if not facts.gpus and not findings:
        findings.append(Finding("the CUDA kernels are built, but no GPU is visible"))
    return findings


def _reinstall_command() -> str:
    """The command that builds this installation anew, from the source that the installer recorded (PEP 610).

    In the folder of the sources, where none is recorded, or a wheel, which would be the same one again.
    """
    has_pip = any(importlib.metadata.distributions(name="pip"))
    python = shlex.quote(sys.executable)
    install = f"{python} -m pip install" if has_pip else f"uv pip install --python {python}"
    source, where = ".", " (in the folder of wgan_fast's sources)"
    for distribution in importlib.metadata.distributions(name="wgan_fast"):
        noted = json.loads(distribution.read_text("direct_url.json") or "{}")
        if noted and not urlparse(noted["url"]).path.endswith(".whl"):
            source = unquote(urlparse(noted["url"]).path) if noted["url"].startswith("file:") else noted["url"]
            if version := noted.get("vcs_info"):
                source = f"{version['vcs']}+{noted['url']}@{version['commit_id']}"
            source, where = shlex.quote(source), ""
            source = f"-e {source}" if noted.get("dir_info", {}).get("editable") else source
            break
    return f"{install} --force-reinstall --no-deps --no-cache-dir {source}{where}"


def _driver() -> str | None:
    if (query := shutil.which("nvidia-smi")) is None:
        return None
    asked = [query, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi fails"
    return answer[0] if answer else None


def collect() -> Facts:
    """The facts of this machine."""
    package = Path(wgan_fast.__file__).parent
    try:
        import torch

        from wgan_fast import _library
    except (ImportError, OSError) as error:
        record = json.loads(note.read_text()) if (note := package / "_build.json").exists() else {}
        versions = (folder.name.removeprefix("torch-") for folder in (package / "_builds").glob("torch-*"))
        return Facts(
            torch=None,
            torch_cuda=None,
            gpus=(),
            package=str(package),
            build=None,
            torch_failure=str(error),
            build_failure=record.get("failure"),
            built_for=record.get("torch"),
            wheel_for=tuple(sorted(versions, key=_minor)),
            driver=_driver(),
            reinstall=_reinstall_command(),
        )
    record = _library.record
    others = (Path(entry).resolve() / "wgan_fast" for entry in sys.path)
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Facts(
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        gpus=tuple((gpu.name, f"{gpu.major}.{gpu.minor}") for gpu in gpus),
        package=str(package),
        build=_library.extension.build_info() if _library.extension else None,
        failure=_library.failure,
        build_failure=record.get("failure"),
        built_for=record.get("torch"),
        debug=record.get("debug", False),
        wheel_for=tuple(_library.wheel_builds(package)),
        cuda_left_out=record.get("cuda_left_out"),
        elsewhere=None
        if any(package.rglob("_C.*"))  # it exists, but did not load
        else next((str(other) for other in others if other != package and any(other.glob("_C.*"))), None),
        driver=_driver(),
        reinstall=_reinstall_command(),
    )


def report(facts: Facts) -> str:
    """The facts and the findings of :func:`diagnose` as text."""
    build = facts.build or {}
    threads = "on torch's threads" if build.get("threads") else "on one thread"
    rows = {
        "wgan_fast": f"{wgan_fast.__version__} in {facts.package}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{facts.torch} ({f'CUDA {facts.torch_cuda}' if facts.torch_cuda else 'no CUDA'})"
        if facts.torch
        else "cannot be imported",
        "GPUs": ", ".join(f"{name} ({capability})" for name, capability in facts.gpus) or "none visible",
        "driver": facts.driver,
        "extension": f"{build['version']}, for torch {build['torch']}, compiler {build['compiler']}"
        if build
        else "none",
        "CPU kernels": None
        if facts.torch is None
        else f"chose {build['instruction_set']}, {threads}"
        if build
        else "none; the plain-PyTorch reference is used",
        "CUDA kernels": f"CUDA {build['cuda']} for {', '.join(build['cuda_architectures'])}"
        if build.get("cuda")
        else "none",
    }
    lines = [f"{name:<13} {value}" for name, value in rows.items() if value]
    for finding in diagnose(facts):
        lines += ["", f"{'! ' if finding.remedy else ''}{finding.problem}"]
        lines += [f"  -> {finding.remedy}"] if finding.remedy else []
    if not any(finding.remedy for finding in diagnose(facts)):
        lines += ["", "No problems found."]
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> int:
    """Prints the report, or with ``--json`` facts and findings. Returns 1 if there is a problem, else 0."""
    parser = argparse.ArgumentParser(prog="wgan-fast doctor", description="Diagnosis of an installation.")
    parser.add_argument("--json", action="store_true", help="facts and findings as JSON")
    as_json = parser.parse_args(arguments).json
    facts = collect()
    if as_json:
        findings = [asdict(finding) for finding in diagnose(facts)]
        print(json.dumps({"version": wgan_fast.__version__, "facts": asdict(facts), "findings": findings}, indent=2))
    else:
        print(report(facts))
    return int(any(finding.remedy for finding in diagnose(facts)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
