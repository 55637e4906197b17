"""Loads the compiled extension ``_C``, which registers the operators ``torch.ops.wgan_fast``, and chooses between them
and the reference.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch

from wgan_fast import reference
from wgan_fast._torch import warn_user

F = TypeVar("F", bound=Callable[..., Any])


def read_record(folder: Path) -> dict[str, Any]:
    """What setup.py recorded of the build: ``torch``, ``debug``, ``failure`` and ``cuda_left_out``; empty for none."""
    file = folder / "_build.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return record


def mismatch(built_for: str | None, torch_version: str) -> str | None:
    """Why an extension built for one torch does not serve another: the C++ ABI changes between minor versions."""
    if built_for is None or built_for.split(".")[:2] == torch_version.split(".")[:2]:
        return None
    return f"it was built for torch {built_for}, and this is torch {torch_version}"


def _load() -> tuple[ModuleType | None, str | None]:
    folder = Path(__file__).parent
    if record.get("failure"):
        return None, f"it was not compiled when wgan_fast was installed: {record['failure']}"
    if differs := mismatch(record.get("torch"), torch.__version__):  # loading it could crash
        return None, differs
    try:
        return importlib.import_module("wgan_fast._C"), None
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            return None, f"it was compiled for another PyTorch than {torch.__version__}, or is damaged: {error}"
        if (folder.parent / "setup.py").exists():
            return None, (
                f"wgan_fast is imported from its source folder {folder.parent}, where nothing was built: run Python "
                "from another folder, or build it here with `pip install -e .`"
            )
        return None, f"{folder} holds no compiled extension for this Python"


record = read_record(Path(__file__).parent)
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
    return not torch.compiler.is_compiling() and _traceable.get()  # Dynamo cannot trace a ContextVar


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
