"""Devices, processes and precision of a run, by Lightning Fabric; signals and CPU threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed as dist
from torch import nn

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import PRECISIONS, TrainConfig, find_device


class LaunchError(RuntimeError):
    """Nothing, or several at once, would train with the processes that the environment names."""


_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(config: TrainConfig) -> Fabric:
    """Sets up the device and precision, and the process group if ``torchrun`` started several processes.

    Raises:
        ValueError: the batch size is not a multiple of the number of processes.
        LaunchError: the environment names several processes that nothing started, several that know nothing of one
            another, or more than there are GPUs.
    """
    device = find_device(config.device)
    world, local = _processes()
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise LaunchError(
            f"torchrun started {local} processes here, and PyTorch finds {torch.cuda.device_count()} GPUs: start as "
            "many as there are, or name --device cpu"
        )
    if config.batch_size % world:
        raise ArgumentValueError("batch_size", f"expected a multiple of the {world} processes, got {config.batch_size}")
    fabric = Fabric(
        accelerator=device.type,
        devices=local if world > 1 or device.type == "cpu" else [device.index or 0],
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        # Named, for Fabric would guess it from variables that may be of another job.
        plugins=TorchElasticEnvironment() if world > 1 else LightningEnvironment(),
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _processes() -> tuple[int, int]:
    """How many processes train, and how many of them on this machine, as torchrun tells its own."""
    world, local = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == "1":
        alike = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # of srun; a batch script alone is one process
        if alike != "1":
            raise LaunchError(
                f"srun started {alike} processes, which would all train the same run: start one for each machine "
                "(srun --ntasks-per-node=1) that starts torchrun"
            )
        return 1, 1
    missing = [name for name in _OF_TORCHRUN if not os.environ.get(name, "").strip()]
    if missing or not (world.isdecimal() and local.isdecimal()) or not int(local) or int(world) % int(local):
        raise LaunchError(
            f"the environment has WORLD_SIZE={world}, but not what torchrun sets with it "
            f"({', '.join(missing) or 'numbers'}): unset WORLD_SIZE to train in one process, or use torchrun"
        )
    return int(world), int(local)


def process_group(fabric: Fabric) -> "dist.ProcessGroup | None":
    """The process group over which the steps reduce gradients; None with one process."""
    return dist.group.WORLD if fabric.world_size > 1 else None


def place(fabric: Fabric, network: nn.Module) -> nn.Module:
    """Moves a network to the device. With several GPUs batch normalisation is synchronised."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(fabric.device)


#: The compute capability from which on GPUs compute in TF32 and bfloat16.
AMPERE = (8, 0)
#: Weights of a critic of vectors from which on a second CPU thread pays. A layer of 128 units is too little work.
MANY_WEIGHTS = 100_000


def choose_threads(config: TrainConfig, critic: nn.Module, shape: tuple[int, ...], fabric: Fabric) -> tuple[int, str]:
    """CPU threads per operation, and why: ``config.threads``, else as many as pay for samples of this shape."""
    if config.threads is not None:
        return config.threads, "as --threads says"
    if fabric.device.type == "cuda":
        return 1, "the GPU computes"
    if len(shape) < 3 and sum(weights.numel() for weights in critic.parameters()) < MANY_WEIGHTS:
        return 1, "more do not pay for networks this small"
    return torch.get_num_threads(), "all that PyTorch uses here"  # it knows of OMP_NUM_THREADS, and of torchrun's share


def choose_workers(config: TrainConfig, decoded: bool, fabric: Fabric) -> int:
    """Processes that prefetch data: ``config.workers``, else as many as the files to decode keep busy."""
    if config.workers is not None:
        return config.workers
    spare = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE") or 1) - 1
    return max(0, min(8 if fabric.device.type == "cuda" else 1, spare)) if decoded else 0


def placement(config: TrainConfig, fabric: Fabric, threads: tuple[int, str]) -> str:
    """What a run computes on, and why, in a line."""
    count, why = threads
    if fabric.device.type == "cpu":
        chosen = "cpu (PyTorch finds no GPU)" if config.device == "auto" else "cpu"
        return f"on {chosen}, {count} thread{'s' if count > 1 else ''} ({why})"
    found = " (PyTorch finds a GPU)" if config.device == "auto" else ""
    name = torch.cuda.get_device_name(fabric.device)
    told = f"on {fabric.device}, {name}{found}, precision {config.precision}"
    if config.precision != "32":
        return told
    if torch.cuda.get_device_capability(fabric.device) < AMPERE:
        return f"{told}; --precision 16 may be faster"
    convolutions = ", convolutions in TF32" if torch.backends.cudnn.allow_tf32 else ""
    return f"{told}{convolutions}; --precision bf16 may be faster"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets the number of PyTorch's CPU threads for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
