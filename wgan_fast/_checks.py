"""Checks of what users pass: each names the argument, what was given and what is wanted."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn


class ArgumentError(Exception):
    """A wrong argument: its name, and what was expected. As text ``name: message``.

    Of an element of a sequence the name has the index: ``params[3]``.
    """

    def __init__(self, argument: str, message: str) -> None:
        Exception.__init__(self, argument, message)  # not OSError's, which would take the name for an errno
        self.argument, self.message = argument, message

    def __str__(self) -> str:
        return f"{self.argument}: {self.message}"


class ArgumentTypeError(ArgumentError, TypeError):
    """Of the wrong type."""


class ArgumentValueError(ArgumentError, ValueError):
    """Of a value that is not accepted."""


class ArgumentOSError(ArgumentError, OSError):
    """A file or folder that cannot be used."""


class ArgumentFileExistsError(ArgumentOSError, FileExistsError):
    """A file or folder that is there already."""


class ArgumentFileNotFoundError(ArgumentOSError, FileNotFoundError):
    """A file or folder that is not there."""


FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic: float32 for the 16-bit types, else the type itself."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def module_of(network: Any) -> nn.Module | None:
    """The Module behind a callable: itself, or that of a bound method or of a functools.partial."""
    function, _ = without_partial(network)
    function = getattr(function, "__self__", function)
    return function if isinstance(function, nn.Module) else None


def without_partial(function: Any) -> tuple[Any, dict[str, Any]]:
    """The function inside a functools.partial, and the keyword arguments that the partial binds."""
    keywords: dict[str, Any] = {}
    while isinstance(function, partial):
        function, keywords = function.func, function.keywords | keywords
    return function, keywords


def check_tensor(name: str, value: Any) -> None:
    """A dense floating-point tensor with at least one element."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(name, f"expected a Tensor, got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise ArgumentTypeError(name, f"expected float16, bfloat16, float32 or float64, got {value.dtype}")
    if value.layout != torch.strided:
        raise ArgumentTypeError(name, f"expected a dense tensor, got layout {value.layout}")
    if value.numel() == 0:
        raise ArgumentValueError(name, f"expected at least one element, got shape {tuple(value.shape)}")


def check_batch(name: str, value: Any) -> None:
    """A tensor whose first dimension is the batch."""
    check_tensor(name, value)
    if value.dim() == 0:
        raise ArgumentValueError(name, "expected a batch of shape (B, ...), got a scalar")


def check_same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ArgumentValueError(name, f"expected device {other.device} as of {other_name}, got {value.device}")


def check_same_shape(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.shape != other.shape:
        raise ArgumentValueError(
            name, f"expected shape {tuple(other.shape)} as of {other_name}, got {tuple(value.shape)}"
        )


def check_same_samples(name: str, value: Any, other_name: str, other: Any) -> None:
    """Batches of samples of one shape, on one device; their numbers of samples may differ."""
    check_batch(other_name, other)
    check_batch(name, value)
    if value.shape[1:] != other.shape[1:]:
        expected, given = tuple(other.shape[1:]), tuple(value.shape[1:])
        raise ArgumentValueError(name, f"expected samples of shape {expected} as of {other_name}, got {given}")
    check_same_device(name, value, other_name, other)


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    wanted: str | None = None,
) -> None:
    """A finite real number, at least ``minimum``, more than ``above`` and less than ``below``; ``wanted`` says so."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ArgumentTypeError(name, f"expected {wanted or 'a number'}, got {type(value).__name__}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        finite = False
    if not finite:
        raise ArgumentValueError(name, f"expected {wanted or 'a finite number'}, got {value}")
    if (
        (minimum is not None and value < minimum)
        or (above is not None and value <= above)
        or (below is not None and not value < below)
    ):
        bounds = {">=": minimum, ">": above, "<": below}
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
        raise ArgumentValueError(name, f"expected {wanted or f'a number {limits}'}, got {value}")


def check_integer(name: str, value: Any, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentTypeError(name, f"expected an integer, got {value!r}")
    if value < minimum:
        raise ArgumentValueError(name, f"expected an integer of at least {minimum}, got {value}")


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ArgumentTypeError(name, f"expected True or False, got {type(value).__name__}")


def check_scores(name: str, value: Any, samples: int | None = None) -> None:
    """What a critic returned: a tensor of scores, of any shape; with ``samples``, a sum or a score for each of so many
    samples.
    """
    if not isinstance(value, Tensor):
        cure = ""
        if isinstance(value, tuple | list | Mapping) and value:
            item = next(iter(value)) if isinstance(value, Mapping) else 0
            wrapped = f"; return the scores alone, or pass one item of it: `lambda *args: critic(*args)[{item!r}]`"
            cure = wrapped if name == "critic" else "; pass the scores alone"
        raise ArgumentTypeError(name, f"expected a Tensor of scores, got {type(value).__name__}{cure}")
    check_tensor(name, value)
    if samples is not None and value.dim() > 0 and value.numel() < samples:
        raise ArgumentValueError(
            name,
            f"expected a score for each of {samples} samples, got shape {tuple(value.shape)}; a critic that scores "
            "several samples together takes them packed along the channels, in the penalty too (PacGAN in "
            "docs/critics.md)",
        )


def check_weights(name: str, tensors: Sequence[Tensor]) -> None:
    """Tensors that can be clipped in place. The compiled operator makes the same checks itself."""
    for i, tensor in enumerate(tensors):
        if tensor.dtype not in FLOATING:
            raise ArgumentTypeError(
                f"{name}[{i}]", f"expected float16, bfloat16, float32 or float64, got {tensor.dtype}"
            )
        if any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            raise ArgumentValueError(
                f"{name}[{i}]",
                "several of its elements share one place in memory; pass the tensor that it was expanded from",
            )
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise ArgumentValueError(
                f"{name}[{i}]", "an inference tensor can be changed only inside torch.inference_mode()"
            )


def check_callable(name: str, value: Any) -> None:
    """Something that can be called."""
    if not callable(value):
        raise ArgumentTypeError(name, f"expected a callable, got {type(value).__name__}")
    if isinstance(value, type):
        raise ArgumentTypeError(name, f"expected a callable, got the class {value.__name__}; make an instance of it")


def misfit(function: Any, args: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> str | None:
    """Why Python would refuse to call the function with these; None where it would not, or cannot be asked."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*args, **(keywords or {}))
    except TypeError as error:
        return str(error)
    return None


def call_critic(
    critic: Callable[..., Tensor], points: Sequence[Tensor], args: Sequence[Any], keywords: Mapping[str, Any]
) -> Tensor:
    """The scores. What is meant for the penalty, as a positional weight, is told from an error inside the critic."""
    try:
        return critic(*points, *args, **keywords)
    except TypeError as error:
        reason = misfit(critic, (*points, *args), keywords)
        if reason is None:
            raise
        raise ArgumentTypeError(
            "critic",
            f"its call has {reason.removeprefix('got ')}; a penalty passes what follows the samples on to the critic, "
            "and its own arguments are named, as in weight=10.0",
        ) from error


def check_scaler(name: str, value: Any) -> None:
    """A GradScaler, or None."""
    if value is not None and not isinstance(value, torch.amp.GradScaler):
        raise ArgumentTypeError(name, f"expected a torch.amp.GradScaler, got {type(value).__name__}")


def check_generator(name: str, value: Any, other_name: str, other: Tensor) -> None:
    """None, or a generator of random numbers that can draw on the other's type of device."""
    if value is None:
        return
    if not isinstance(value, torch.Generator):
        raise ArgumentTypeError(name, f"expected a torch.Generator, got {type(value).__name__}")
    if value.device.type != other.device.type:
        raise ArgumentValueError(name, f"expected one of device {other.device} as of {other_name}, got {value.device}")


def check_scalar(name: str, value: Any) -> None:
    """What the callable ``name`` returned: a tensor of one number, without dimensions."""
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentValueError(name, f"expected a callable that returns a scalar Tensor, got {got}")
