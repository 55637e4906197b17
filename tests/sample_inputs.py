"""Drawn batches: any shape, type, memory format and alignment."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from conftest import FLOATING

LAYOUTS = ("contiguous", "unaligned", "permuted", "channels_last", "gaps", "row_gaps", "expanded")


def with_layout(values: Tensor, layout: str) -> Tensor:
    """The same values, lying differently in memory."""
    if layout == "unaligned":
        memory = torch.empty(values.numel() + 1, dtype=values.dtype, device=values.device)
        return memory[1:].view(values.shape).copy_(values)
    if layout == "permuted":
        order = list(range(values.dim()))[::-1]
        return values.permute(order).contiguous().permute(order)
    if layout == "channels_last" and values.dim() in (4, 5):
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return values.contiguous(memory_format=formats[values.dim()])
    if layout == "gaps":
        memory = torch.empty(*values.shape, 2, dtype=values.dtype, device=values.device)
        return memory[..., 0].copy_(values)
    if layout == "row_gaps":
        memory = torch.empty(values.shape[0], 2, *values.shape[1:], dtype=values.dtype, device=values.device)
        return memory[:, 1].copy_(values)
    if layout == "expanded":
        return values[:1].expand_as(values)
    return values.contiguous()


@st.composite
def shapes(draw: st.DrawFn, max_elements: int = 40_000) -> tuple[int, ...]:
    """Few long rows, many short rows, and everything between; samples of 1 to 5 dimensions."""
    rows = draw(st.sampled_from([1, 2, 3, 7, 64, 257, 1025]))
    budget = max(1, max_elements // rows)
    sizes: list[int] = []
    for _ in range(draw(st.integers(1, 5))):
        sizes.append(draw(st.one_of(st.integers(1, min(9, budget)), st.integers(1, budget))))
        budget = max(1, budget // sizes[-1])
    return (rows, *draw(st.permutations(sizes)))


dtypes = st.sampled_from(FLOATING)
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**31 - 1)


def batch(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int, device: torch.device) -> Tensor:
    """Normal values, among them a few exact zeros."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    values[torch.rand(shape, generator=generator) < 0.01] = 0.0
    return with_layout(values.to(device=device, dtype=dtype), layout)
