"""Several processes, with DDP or FSDP2: torchrun --nproc-per-node 2 distributed.py [ddp|fsdp2]"""

import sys

import torch
from plain_loop import mlp, ring
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from wgan_fast import CriticLoss


def main(steps: int = 1000, way: str = "ddp") -> float:
    dist.init_process_group("gloo")  # on GPUs "nccl"
    torch.manual_seed(0)  # the same weights everywhere
    loss = CriticLoss(mlp(2, 1))
    if way == "ddp":  # the loss, not the critic: DDP reduces only what its own forward computed
        loss = DistributedDataParallel(loss)
    else:
        fully_shard(loss, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-4, betas=(0.5, 0.9))
    torch.manual_seed(1 + dist.get_rank())  # different samples
    for _ in range(steps):
        output = loss(ring(256), torch.randn(256, 2))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    print(f"process {dist.get_rank()}: estimate of the distance {output.wasserstein.item():.3f}", flush=True)
    dist.barrier()
    return output.loss.item()


if __name__ == "__main__":
    main(way=sys.argv[1] if len(sys.argv) > 1 else "ddp")
