"""What a CUDA graph or a trace freezes beside a step's inputs. It is compared at each step, so asking must be cheap."""

from collections.abc import Collection, Hashable, Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast._step.optimization import Optimization
from wgan_fast._torch import dropout_probability, numerical_settings

_HOOKS_OF_TENSOR = attrgetter("_backward_hooks")


class Frozen:
    """The part of modules and optimization that a capture or a trace depends on. Tensors are listed once, and again
    where a module or the optimizer holds others.
    """

    def __init__(self, modules: list[nn.Module], optimization: Optimization) -> None:
        self._modules, self._optimization = modules, optimization
        self._held_by_modules: list[Collection[Any]] = []  # live views of their dictionaries
        self._held: list[Any] = []

    def __reduce__(self) -> Any:
        return Frozen, (self._modules, self._optimization)  # a view cannot be copied

    def settings(self) -> Hashable:
        """Modules, tensors and which of them are frozen, hooks, modes, and PyTorch's settings that choose kernels."""
        groups = self._optimization.optimizer.param_groups
        held = [*chain.from_iterable(self._held_by_modules), *chain(*[group["params"] for group in groups])]
        if len(held) != len(self._held) or not all(map(is_, held, self._held)):
            self._list()
        device = self._optimization.device.type
        return (
            self._identity,
            *[tensor.requires_grad for tensor in self._tensors],
            # The numbers of their handles, which are never given twice.
            *[(*hooks,) for hooks in filter(None, chain(self._hooks, map(_HOOKS_OF_TENSOR, self._tensors)))],
            *[part.training for part in self._parts],
            *map(dropout_probability, self._with_dropout),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            *numerical_settings(device),
        )

    def _list(self) -> None:
        self._parts = [part for module in self._modules for part in module.modules()]
        self._with_dropout = [part for part in self._parts if dropout_probability(part) is not None]
        self._held_by_modules = [
            values.values() for part in self._parts for values in (part._modules, part._parameters, part._buffers)
        ]
        of_optimizer = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")  # a wrapper may have none
        self._hooks = [getattr(self._optimization.inner, name, {}) for name in of_optimizer]
        for part in self._parts:
            self._hooks += part._forward_pre_hooks, part._forward_hooks, part._backward_pre_hooks, part._backward_hooks
        self._held = [*chain.from_iterable(self._held_by_modules), *self._optimization.parameters(frozen=True)]
        self._tensors = [value for value in dict.fromkeys(self._held) if isinstance(value, Tensor)]
        # A module may be replaced by one with the same tensors, or none: another activation. The key keeps it alive.
        self._identity = tuple(id(value) if isinstance(value, Tensor) else value for value in self._held)

    def settings_of_optimizer(self) -> Iterator[Hashable]:
        """What a CUDA graph records of them: numbers, the values of tensors on the CPU, addresses of others."""
        for group in self._optimization.optimizer.param_groups:
            for name, value in group.items():
                if isinstance(value, Tensor):
                    yield value.item() if value.is_cpu else value.data_ptr()
                elif name != "params":
                    yield tuple(value) if isinstance(value, list) else value
        scaler = self._optimization.scaler
        if scaler is not None:
            yield scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()

    def addresses(self) -> list[int]:
        """The addresses of parameters, buffers and the optimizer's state, which a CUDA graph records; of those that
        :meth:`settings` has just seen.
        """
        state = [*chain.from_iterable(map(dict.values, self._optimization.optimizer.state.values()))]
        try:
            return [*map(Tensor.data_ptr, self._tensors), *map(Tensor.data_ptr, state)]
        except TypeError:  # not all of the state are tensors
            tensors = [value for value in state if isinstance(value, Tensor)]
            return [*map(Tensor.data_ptr, self._tensors), *map(Tensor.data_ptr, tensors)]
