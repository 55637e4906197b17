"""Whether the rows of a critic's batch are independent, so that real and fake samples can be scored in one batch."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import accumulate_dtype, module_of
from wgan_fast._torch import float32_precision, tensors_in, uncached_parametrizations, without_autocast


@torch.no_grad()
def rows_are_independent(
    critic: Callable[..., Tensor], real: Tensor, fake: Tensor, *args: Any, **kwargs: Any
) -> bool | None:
    """Whether scoring real and fake samples in one batch equals scoring one after the other, for samples and batches of
    these shapes. A probe of six forwards checks that

    - the scores of one half of a batch stay bitwise the same when the other half changes;
    - up to rounding, scores change neither when the halves change places, nor when each half is scored alone;
    - scoring changes neither the critic's buffers, nor its input, nor PyTorch's random state.

    Tensors among ``args`` and ``kwargs`` hold one value for each sample, as :func:`hold_one_per_sample` tells.

    The probe scores with copies of the trained parameters that are moved a little. A term that starts at zero, such as
    a positional embedding, does not show in the scores, but its gradient depends on the rows' places all the same.

    The probe runs without autocast, whose rounding could hide a dependence on a row's place.

    False: rows are coupled, or the critic is not a Module, or the probe raised (a critic for one batch size, say, or
    inside a transform). None: the scores are not finite, or too alike to tell a dependence from rounding (constant, or
    with a large common offset, also in float64). Buffers, attributes of modules and random state are restored.
    """
    module = module_of(critic)
    if module is None:
        return False
    owners = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    values, buffers = [buffer.clone() for _, _, buffer in owners], list(module.named_buffers())
    attributes = [(part, dict(vars(part))) for part in module.modules()]
    if torch.is_autocast_enabled(real.device.type):
        real, fake = (samples.to(accumulate_dtype(samples.dtype)) for samples in (real, fake))
    halves = [len(real), len(fake)]
    with (
        torch.random.fork_rng(devices=[real.device] if real.device.type == "cuda" else []),
        without_autocast(real.device.type),
        uncached_parametrizations(),
    ):
        random_state = _random_state(real.device)
        try:
            scored, moved, doubled = critic, _moved(module), {}
            critic = functools.partial(_call_with, scored, module, moved)
            alone = torch.cat([critic(samples.clone(), *args, **kwargs) for samples in (real, fake)])
            rounding = _rounding(alone)
            if rounding is None and real.dtype == torch.float32:
                # A common offset hides the scores' differences, as where weights are clipped.
                doubled = _doubled({**dict(module.named_parameters()), **moved, **dict(module.named_buffers())})
                critic = functools.partial(_call_with, scored, module, doubled)
                real, fake, args, kwargs = tree_map_only(Tensor, _double, (real, fake, args, kwargs))
                alone = torch.cat([critic(samples.clone(), *args, **kwargs) for samples in (real, fake)])
                rounding = _rounding(alone)
            if rounding is None:
                return None
            of_place, of_size = rounding
            batch, (args, kwargs) = torch.cat([real, fake]), for_both(args, kwargs)
            scores = critic(batch, *args, **kwargs)
            of_real, of_fake = scores.split(halves)
            swapped = torch.cat(critic(torch.cat([fake, real]), *args, **kwargs).split(halves[::-1])[::-1])
            beside_another_fake, _ = critic(torch.cat([real, 1 - 2 * fake]), *args, **kwargs).split(halves)
            _, beside_another_real = critic(torch.cat([1 - 2 * real, fake]), *args, **kwargs).split(halves)
            return (
                bool((scores - swapped).abs().max() <= of_place)
                and bool((scores - alone).abs().max() <= of_size)
                and torch.equal(of_real, beside_another_fake)
                and torch.equal(of_fake, beside_another_real)
                and torch.equal(batch, torch.cat([real, fake]))
                and torch.equal(_random_state(real.device), random_state)
                and all(torch.equal(doubled.get(name, _double(buffer)), _double(buffer)) for name, buffer in buffers)
                and all(
                    part._buffers.get(name) is buffer and torch.equal(buffer, value)
                    for (part, name, buffer), value in zip(owners, values, strict=True)
                )
            )
        except Exception:  # an error of the critic itself is raised again when each half is scored
            return False
        finally:
            for (part, name, buffer), value in zip(owners, values, strict=True):
                part._buffers[name] = buffer.copy_(value)
            for part, before in attributes:  # a counter, or what the critic keeps of the moved parameters
                vars(part).clear()
                vars(part).update(before)


def _double(tensor: Tensor) -> Tensor:
    """A copy, in float64 if it is of a floating-point type."""
    return tensor.double() if tensor.is_floating_point() else tensor.clone()


def _doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: _double(tensor) for name, tensor in tensors.items()}


def _moved(module: nn.Module) -> dict[str, Tensor]:
    """The trained parameters, each moved by up to a tenth of its root mean square; of one that is zero throughout, by
    a tenth of an initial weight. Elements move by different amounts, without random numbers.
    """
    moved: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.requires_grad or parameter.numel() == 0:
            continue  # shards, and parameters of a lazy layer, stay as they are
        numbers = torch.view_as_real(parameter) if parameter.is_complex() else parameter
        size = torch.linalg.vector_norm(numbers, dtype=accumulate_dtype(numbers.dtype)) / numbers.numel() ** 0.5
        initial = (max(1, parameter.shape[0] if parameter.dim() else 1) / parameter.numel()) ** 0.5
        first = len(moved) + 1  # parameters differ too: rows of a ParameterList, for example
        # In place: of a large critic, each further copy would be the peak of the step's memory. With the strides that
        # the parameter has: channels_last, say.
        value = torch.empty_like(numbers, dtype=size.dtype)
        places = torch.arange(first, first + numbers.numel(), out=value.as_strided((numbers.numel(),), (1,)))
        places.sin_().mul_(0.1 * torch.where(size > 0, size, initial))
        value = value.add_(numbers).to(numbers.dtype)
        moved[name] = nn.Parameter(torch.view_as_complex(value) if parameter.is_complex() else value)
    return moved


class _Called(nn.Module):
    """A callable that uses a module: the module, one of its methods, or a functools.partial of these."""

    def __init__(self, function: Callable[..., Any], module: nn.Module) -> None:
        super().__init__()
        self.module, self.function = module, functools.partial(function)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _call_with(
    function: Callable[..., Any], module: nn.Module, tensors: dict[str, Tensor], *args: Any, **kwargs: Any
) -> Any:
    """Calls the function while the module has these parameters and buffers in the place of its own."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    in_place_of = {id(own[name]): tensor for name, tensor in tensors.items()}
    # Every place, once. functional_call would find tied ones by itself, but it takes a part that has two names for two
    # places, and then leaves the second tensor in the module.
    named = {
        f"module.{path}.{name}" if path else f"module.{name}": in_place_of[id(tensor)]
        for path, part in module.named_modules()
        for name, tensor in (*part._parameters.items(), *part._buffers.items())
        if id(tensor) in in_place_of
    }
    return torch.func.functional_call(_Called(function, module), named, args, kwargs, tie_weights=False)


def hold_one_per_sample(real: Tensor, fake: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether each tensor among the arguments has as many rows as there are real and as there are fake samples."""
    return all(tensor.dim() > 0 and len(tensor) == len(real) == len(fake) for tensor in tensors_in((args, kwargs)))


def for_both(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for a batch of real and fake samples: each tensor twice, one copy after the other."""
    if not args and not kwargs:
        return args, kwargs
    both: tuple[tuple[Any, ...], dict[str, Any]] = tree_map_only(Tensor, lambda a: torch.cat([a, a]), (args, kwargs))
    return both


#: The unit of rounding of float32 products, where PyTorch's settings allow less than float32.
_UNITS = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def _rounding(scores: Tensor) -> tuple[Tensor, Tensor] | None:
    """How far rounding may move a score where its row has another place, and where the batch has another size. None:
    the scores are not finite, or so alike that rounding could hide a dependence.

    In float32 and float64 a common offset is rounded to within two units, and what was summed before to within 16 units
    of the spread (measured on small critics: 1 to 3). Another size may choose other kernels: of products in TF32 or of
    16 bits it may change all the rounding, but another place may not, and leaves scores of 16 bits bitwise the same.
    """
    spread, largest = scores.amax() - scores.amin(), scores.abs().max()
    if not spread.isfinite() or spread == 0:
        return None
    unit = torch.finfo(scores.dtype).eps
    precisions = float32_precision(scores.device.type) if scores.dtype == torch.float32 else ()
    of_products = max([unit, *(_UNITS.get(precision, 0.0) for precision in precisions)])
    fine = 2 * unit * largest + 16 * unit * spread
    if of_products < 1e-6:
        return (fine, fine) if 2 * unit * largest < 1e-4 * spread else None
    of_place = fine if unit < 1e-6 else torch.zeros_like(fine)
    return (of_place, of_products * largest) if of_products * largest < spread / 16 else None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
