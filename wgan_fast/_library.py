"""Loads the compiled extension ``_C``, which registers the operators ``torch.ops.wgan_fast``, and picks who computes:
they or the reference.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from wgan_fast import reference
from wgan_fast._checks import accumulate_dtype


def _load() -> tuple[ModuleType | None, str | None]:
    folder = Path(__file__).parent
    try:
        return importlib.import_module("wgan_fast._C"), None
    except ImportError as error:
        recorded = folder / "_build_failure.txt"
        if recorded.exists():
            return None, f"it was not compiled when wgan_fast was installed: {recorded.read_text().strip()}"
        if not isinstance(error, ModuleNotFoundError):
            return None, f"it was compiled for another PyTorch than {torch.__version__}, or is damaged: {error}"
        if (folder.parent / "setup.py").exists():
            return None, (
                f"wgan_fast is imported from its source folder {folder.parent}, where nothing was built: run Python "
                "from another folder, or build it here with `pip install -e .`"
            )
        return None, f"{folder} holds no compiled extension for this Python"


#: The module ``_C``, or None; and then why.
extension, failure = _load()
_device_types = {"cpu", "meta"}
if extension is not None and extension.build_info()["cuda"] is not None:
    _device_types.add("cuda")


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns about the user's line, however deep inside the package this is called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("wgan_fast.", "torch.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@cache
def _announce(reason: str) -> None:
    warn_user(
        f"wgan_fast computes with its slower plain-PyTorch reference: {reason}. "
        "`python -m wgan_fast.doctor` says what to do.",
        RuntimeWarning,
    )


_traceable = False


@contextmanager
def traceable() -> Iterator[None]:
    """While a step is traced for the compiler: plain PyTorch, which it can see through and fuse, serves in place of the
    operators.
    """
    global _traceable
    _traceable = True
    try:
        yield
    finally:
        _traceable = False


def is_traceable() -> bool:
    return _traceable


def is_recorded() -> bool:
    """Whether a CUDA graph or a trace records what happens now, so that nobody may look at values."""
    return _traceable or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def operators(*devices: torch.device) -> Any:
    """Who computes for tensors on these devices: ``torch.ops.wgan_fast``, or :mod:`wgan_fast.reference`.

    That the reference must serve is announced once, with the reason. Inside ``torch.func`` transforms it serves too,
    since they refuse C++ autograd functions.
    """
    if _traceable:
        return reference
    if extension is None:
        _announce(f"its extension is missing, {failure}")
        return reference
    for device in devices:
        if device.type not in _device_types:
            _announce(f"its extension was built without kernels for the device type {device.type}")
            return reference
    return reference if torch._C._are_functorch_transforms_active() else torch.ops.wgan_fast


if extension is not None:

    def _empty_rows(batch: Tensor) -> Tensor:
        return torch.empty_like(batch, memory_format=torch._prims_common.suggest_memory_format(batch))

    @torch.library.register_fake("wgan_fast::interpolate")
    def _(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
        return _empty_rows(real)

    @torch.library.register_fake("wgan_fast::gradient_norm_penalty")
    def _(gradient: Tensor, weight: float, target: float, power: float, one_sided: bool) -> tuple[Tensor, Tensor]:
        dtype = accumulate_dtype(gradient.dtype)
        return gradient.new_empty((), dtype=dtype), gradient.new_empty(gradient.shape[0], dtype=dtype)

    @torch.library.register_fake("wgan_fast::gradient_norm_penalty_backward")
    def _(
        grad_penalty: Tensor,
        gradient: Tensor,
        norms: Tensor,
        weight: float,
        target: float,
        power: float,
        one_sided: bool,
    ) -> Tensor:
        return _empty_rows(gradient)

    @torch.library.register_fake("wgan_fast::piecewise_linear")
    def _(x: Tensor, negative_slope: float, lower: float, upper: float) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), _empty_mask(x)

    @torch.library.register_fake("wgan_fast::piecewise_linear_")
    def _(x: Tensor, negative_slope: float, lower: float, upper: float) -> Tensor:
        return _empty_mask(x)

    @torch.library.register_fake("wgan_fast::apply_mask")
    def _(x: Tensor, mask: Tensor, negative_slope: float, stride: list[int]) -> Tensor:
        torch._check_value(x.device == mask.device, lambda: f"mask is on {mask.device} and x on {x.device}")
        return x.new_empty_strided(x.shape, stride)

    def _empty_mask(x: Tensor) -> Tensor:
        return x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)

    @torch.library.register_fake("wgan_fast::clip_weights_")
    def _(tensors: list[Tensor], bound: float) -> None:
        pass

    @torch.library.register_fake("wgan_fast::rmsprop_")
    def _(
        params: list[Tensor],
        grads: list[Tensor],
        square_averages: list[Tensor],
        lr: Tensor,
        alpha: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
        clip: float,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        on_meta = [param.device.type == "meta" for param in params]
        torch._check_value(
            all(on_meta) or not any(on_meta),
            lambda: "params: some tensors are on meta, which holds no values; materialise them first",
        )
