"""Batches of a folder of images, read in this process: ours against a plain Dataset in PyTorch's DataLoader."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from conftest import Comparison

Image = pytest.importorskip("PIL.Image")
sources = pytest.importorskip("wgan_fast.train.data.sources")  # the extra "train"

COUNT, SIDE, BATCH = 1_000, 64, 64


class PlainImages(Dataset[Tensor]):
    """Decoded by Pillow, scaled to [-1, 1], as in PyTorch's tutorials."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(127.5).sub(1)


def without_end(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader


@pytest.mark.parametrize("side", [64, 96], ids=["as stored", "resized"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def bench_loading(compare: Comparison, tmp_path: Path, kind: str, side: int) -> None:
    if compare.device.type == "cuda":
        pytest.skip("files are read on the host")
    draw = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(tmp_path / f"{i:04}.{kind}")
    ours = sources.batches(sources.make_data(str(tmp_path), size=SIDE), BATCH, seed=0)
    plain = without_end(DataLoader(PlainImages(tmp_path), BATCH, shuffle=True, drop_last=True))
    compare(lambda: next(ours), plain=lambda: next(plain))
    ours.close()
