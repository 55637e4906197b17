"""Types, shapes and layouts that together reach every kernel."""

import torch
from torch import Tensor

from rehearsal import unless_rehearsed

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Rows of one element, of whole vectors and of any length; few long ones and many short ones.
SHAPES = unless_rehearsed(
    ((1, 1), (3, 7), (65, 1023), (64, 3, 32, 32), (5, 3, 17, 19), (2, 300_001), (3, 65_536), (4000, 5), (4096, 8)),
    ((3, 7), (5, 3, 4, 6), (4, 64)),
)
LAYOUTS = ("contiguous", "unaligned", "channels_last", "gaps", "expanded")


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same values, lying differently in memory."""
    if layout == "unaligned":
        memory = values.new_empty(values.numel() + 1)
        return memory[1:].view(values.shape).copy_(values)
    if layout == "channels_last":
        if values.dim() == 4:
            return values.contiguous(memory_format=torch.channels_last)
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "gaps":
        return values.new_empty(*values.shape, 2)[..., 0].copy_(values)
    if layout == "expanded":
        return values[:1].expand_as(values)
    return values.contiguous()
