"""From what a network makes to the user's units, as tensor operations: in a checkpoint's decoder and in an export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wgan_fast.train.data.tables import Column

Layout = Literal["HW", "HWC", "CHW"]


@dataclass(frozen=True)
class ArrayFormat:
    """How an array or a tensor of the user's held its samples.

    Attributes:
        dtype: NumPy's name of the type.
        layout: of images: ``HW``, ``HWC`` (with one channel, too) or ``CHW``; None for vectors.
        low, high: what -1 and 1 of a network are in images.
        tensor: PyTorch's name of the type of a tensor; empty for an array.
    """

    dtype: str = "|u1"
    layout: Layout | None = None
    low: float = 0.0
    high: float = 255.0
    tensor: str = ""

    @property
    def integer(self) -> bool:
        """Whether values are rounded."""
        return np.dtype(self.dtype).kind in "biu"

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value of the type; of integers of 64 bits the greatest that a float64 holds."""
        kind = np.dtype(self.dtype)
        if kind.kind == "b":
            return 0.0, 1.0
        least, greatest = np.iinfo(kind).min, np.iinfo(kind).max
        below = float(greatest)
        return float(least), below if int(below) <= greatest else float(np.nextafter(below, 0))

    def array(self, values: Tensor) -> NDArray[Any]:
        """Rounded float64 values as an array of the type."""
        return values.numpy().astype(self.dtype)

    def give(self, array: NDArray[Any]) -> Any:
        """The array, or a tensor of the user's type."""
        return torch.from_numpy(array).to(getattr(torch, self.tensor)) if self.tensor else array


class Units(nn.Module):
    """Float32 samples of a network to float64 numbers in the user's units; integers are rounded.

    Args:
        array: the type of vectors and images.
    """

    def __init__(self, array: ArrayFormat | None) -> None:
        super().__init__()
        self.array = array

    def _rounded(self, values: Tensor) -> Tensor:
        if self.array is None or not self.array.integer:
            return values
        return values.round().clamp(*self.array.bounds)


class VectorUnits(Units):
    """``mean + deviation * x``, of shape (B, columns)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float], array: ArrayFormat | None) -> None:
        super().__init__(array)
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64, device="cpu"))

    def forward(self, samples: Tensor) -> Tensor:
        return self._rounded(self.mean + self.deviation * samples.double())


class ImageUnits(Units):
    """[-1, 1] to the range and layout of the user's images; what is beyond is clamped."""

    array: ArrayFormat

    def forward(self, samples: Tensor) -> Tensor:
        low, high, layout = self.array.low, self.array.high, self.array.layout
        shades = samples.double().clamp(-1, 1).add(1).mul((high - low) / 2).add(low)
        if layout == "HW":
            shades = shades.squeeze(1)
        elif layout == "HWC":
            shades = shades.permute(0, 2, 3, 1)
        return self._rounded(shades).contiguous()


class TableUnits(nn.Module):
    """Encoded rows to numbers (B, columns), NaN where a value is missing: dates in seconds since 1970, of categories
    their place in the sorted list.

    The map from the standard normal distribution to that of a column is linear between its quantiles, as that of
    scikit-learn's ``QuantileTransformer``.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        for place, column in enumerate(columns):
            if column.kind != "category":
                quantiles = torch.tensor(column.quantiles, dtype=torch.float64, device="cpu")
                self.register_buffer(f"quantiles{place}", quantiles)

    def forward(self, samples: Tensor) -> Tensor:
        numbers, start = [], 0
        for place, column in enumerate(self.columns):
            width = sum(column.blocks)
            numbers.append(self._number(place, column, samples[:, start : start + width].double()))
            start += width
        return torch.stack(numbers, dim=1)

    def _number(self, place: int, column: Column, coordinates: Tensor) -> Tensor:
        nan = torch.full_like(coordinates.sum(dim=1), torch.nan)
        if column.kind == "category":
            number = coordinates.argmax(dim=1).double() if column.blocks else torch.zeros_like(nan)
            return torch.where(number < len(column.categories), number, nan)
        quantiles = self.get_buffer(f"quantiles{place}")
        if column.quantiles[0] < column.quantiles[-1]:
            level = torch.special.ndtr(coordinates[:, 0]) * (len(quantiles) - 1)
            lower = level.floor().clamp(max=len(quantiles) - 2).long()
            number = torch.lerp(quantiles[lower], quantiles[lower + 1], level - lower)
        else:
            number = quantiles[0].expand_as(nan)
        if column.pattern == "days":
            number = (number / 86400).round() * 86400
        elif column.decimals is not None:
            number = (number * 10**column.decimals).round() / 10**column.decimals
        if column.missing is not None:
            number = torch.where(coordinates[:, -1] > coordinates[:, -2], nan, number)
        return number
