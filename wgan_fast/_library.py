"""Loads the compiled extension ``_C``, which registers the operators ``torch.ops.wgan_fast``, and chooses between them
and the reference.
"""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch.compiler import is_dynamo_compiling

from wgan_fast import reference
from wgan_fast._torch import warn_user

F = TypeVar("F", bound=Callable[..., Any])


def wheel_builds(package: Path) -> dict[str, Path]:
    """In a wheel that `make wheels` made: the folder of each extension, by the minor version of torch. Else empty."""
    folders = (package / "_builds").glob("torch-*")
    return {
        folder.name.removeprefix("torch-"): folder
        for folder in sorted(folders, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)])
    }


def read_record(folder: Path) -> dict[str, Any]:
    """What setup.py recorded of the build: ``torch``, ``cuda``, ``debug``, ``failure``, ``cuda_left_out``; empty for
    none.
    """
    file = folder / "_build.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return record


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def mismatch(record: dict[str, Any], torch_version: str, torch_cuda: str | None) -> str | None:
    """Why an extension does not serve a torch: the C++ ABI changes between its minor versions, and CUDA's between major
    ones. CUDA kernels that a CPU build of torch cannot use do no harm.
    """
    built_for, cuda = record.get("torch"), record.get("cuda")
    if built_for is not None and _minor(built_for) != _minor(torch_version):
        return f"it was built for torch {built_for}, and this is torch {torch_version}"
    if cuda is not None and torch_cuda is not None and cuda.split(".")[0] != torch_cuda.split(".")[0]:
        return f"it was built for CUDA {cuda}, and this torch for CUDA {torch_cuda}"
    return None


def _load() -> tuple[ModuleType | None, str | None]:
    if _held and not record:
        return None, f"this wheel holds extensions for torch {', '.join(_held)}, and this is torch {torch.__version__}"
    if record.get("failure"):
        return None, f"it was not compiled when wgan_fast was installed: {record['failure']}"
    if differs := mismatch(record, torch.__version__, torch.version.cuda):  # loading it could crash
        return None, differs
    try:
        return importlib.import_module("wgan_fast._C"), None
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            return None, f"it was compiled for another PyTorch than {torch.__version__}, or is damaged: {error}"
        if (_package.parent / "setup.py").exists():
            return None, (
                f"wgan_fast is imported from its source folder {_package.parent}, where nothing was built: run Python "
                "from another folder, or build it here with `pip install -e .`"
            )
        return None, f"{_package} holds no compiled extension for this Python"


_package = Path(__file__).parent
_held = wheel_builds(_package)
_folder = _held.get(_minor(torch.__version__), _package)
record = read_record(_folder)
if _folder != _package:
    sys.modules["wgan_fast"].__path__.append(str(_folder))  # `wgan_fast._C` is found there
#: The module ``_C``; or None, and the reason.
extension, failure = _load()
_operators = torch.ops.wgan_fast
_device_types = {"cpu", "meta"}
if extension is not None and extension.build_info()["cuda"] is not None:
    _device_types.add("cuda")


@cache
def _announce(reason: str) -> None:
    warn_user(
        f"wgan_fast computes with its slower plain-PyTorch reference: {reason}. "
        "`python -m wgan_fast.doctor` says what to do.",
        RuntimeWarning,
    )


_traceable = ContextVar("_traceable", default=False)


@contextmanager
def traceable() -> Iterator[None]:
    """While this thread traces a step for the compiler: replaces the operators by the plain-PyTorch reference, which
    the compiler can fuse.
    """
    token = _traceable.set(True)
    try:
        yield
    finally:
        _traceable.reset(token)


def is_traceable() -> bool:
    """Whether :func:`traceable` is active in this thread."""
    return not is_dynamo_compiling() and _traceable.get()  # Dynamo cannot trace a ContextVar


def is_recorded() -> bool:
    """Whether a CUDA graph capture or a trace is under way, during which values cannot be read on the host."""
    return is_traceable() or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def operators(*devices: torch.device) -> Any:
    """The implementation for tensors on these devices: ``torch.ops.wgan_fast``, or :mod:`wgan_fast.reference`.

    The reference where kernels are missing, with one warning that gives the reason; inside ``torch.func`` transforms,
    which refuse C++ autograd functions; and while :func:`traceable` is active.
    """
    if is_traceable():
        return reference
    if extension is None:
        _announce(f"its extension is missing, {failure}")
        return reference
    for device in devices:
        if device.type not in _device_types:
            why = record.get("cuda_left_out") if device.type == "cuda" else None
            why = f" ({why})" if why else ""
            _announce(f"its extension was built without kernels for the device type {device.type}{why}")
            return reference
    return reference if torch._C._are_functorch_transforms_active() else _operators


def register_fake(name: str) -> Callable[[F], F]:
    """Registers the decorated function as the operator's fake (meta) implementation; a no-op without the extension."""
    return (lambda fake: fake) if extension is None else torch.library.register_fake(f"wgan_fast::{name}")
