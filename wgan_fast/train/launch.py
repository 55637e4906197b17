"""Where a run runs: devices, processes and precision, by Lightning Fabric."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from torch import distributed as dist
from torch import nn

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import PRECISIONS, TrainConfig


def launch(config: TrainConfig) -> Fabric:
    """Joins the other processes, where ``torchrun`` has started some.

    Raises:
        ValueError: the batch cannot be shared among them.
    """
    device = torch.device(config.device)
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if config.batch_size % world:
        raise ArgumentValueError("batch_size", f"expected a multiple of the {world} processes, got {config.batch_size}")
    fabric = Fabric(
        accelerator=device.type,
        devices=local if world > 1 or device.type == "cpu" else [device.index or 0],
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def process_group(fabric: Fabric) -> "dist.ProcessGroup | None":
    """What the steps reduce gradients over."""
    return dist.group.WORLD if fabric.world_size > 1 else None


def place(fabric: Fabric, network: nn.Module) -> nn.Module:
    """On the device; batch normalisation sees the samples of all GPUs."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(fabric.device)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Lets an operation of PyTorch use ``count`` CPU threads, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
