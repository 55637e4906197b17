"""Devices, processes and precision of a run, by Lightning Fabric; signals and CPU threads."""

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
    """Sets up the device and precision, and the process group if ``torchrun`` started several processes.

    Raises:
        ValueError: the batch size is not a multiple of the number of processes.
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
    """The process group over which the steps reduce gradients; None with one process."""
    return dist.group.WORLD if fabric.world_size > 1 else None


def place(fabric: Fabric, network: nn.Module) -> nn.Module:
    """Moves a network to the device. With several GPUs batch normalisation is synchronised."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(fabric.device)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets the number of PyTorch's CPU threads for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
