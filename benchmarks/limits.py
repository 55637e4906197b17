"""What a step cannot be faster than: its matrix products and convolutions alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
#: Products that PyTorch can write into existing memory. It has no such form of a convolution: its output is allocated.
INTO = {aten.mm.default: aten.mm.out, aten.addmm.default: aten.addmm.out, aten.bmm.default: aten.bmm.out}


class _Products(TorchDispatchMode):
    """Notes the products and convolutions of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in INTO:
            self.calls.append(_bound(INTO[func], args, {**kwargs, "out": torch.empty_like(out)}))
        elif func._overloadpacket in flop_registry:
            self.calls.append(_bound(func, args, kwargs))
        return out


def _bound(operator: Any, args: Any, kwargs: Any) -> Callable[[], object]:
    return lambda: operator(*args, **kwargs)


def products(function: Callable[[], object]) -> Callable[[], None]:
    """The products of a call of ``function``, on the same tensors, by the same libraries, and nothing else: no
    elementwise work, no optimizer, no autograd. Of two consecutive calls the one with fewer, because some calls of a
    step also look whether the critic's rows are independent.
    """
    function()
    found = []
    for _ in range(2):
        with _Products() as noted:
            function()
        found.append(noted.calls)
    calls = min(found, key=len)

    def products() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    return products
