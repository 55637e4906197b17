"""Two processes with a part of the batch each, against one process with the whole batch."""

import copy
import gc
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from critics import CRITICS, Projection
from wgan_fast import CriticLoss, CriticStep, GeneratorStep, clip_weights_, critic_loss, gradient_penalty
from wgan_fast.optim import RMSprop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="PyTorch was built without gloo"),
]
PROCESSES = 2
sgd = partial(torch.optim.SGD, lr=0.1)


def in_two_processes(check: Callable[[int], None], folder: Path) -> None:
    multiprocessing.spawn(_run, (check, folder), PROCESSES)


def _run(rank: int, check: Callable[[int], None], folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(minutes=2), PROCESSES, rank)
    try:
        check(rank)
        dist.barrier()  # neither leaves while the other still needs it
    finally:
        gc.collect()  # a step in a reference cycle would keep the group
        dist.destroy_process_group()
    # Without the interpreter's finalization, where a thread of gloo that asks for the GIL aborts the process, rarely.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def penalty(critic: nn.Module, real: Tensor, fake: Tensor, *args: Any) -> Tensor:
    """Without random numbers, so that each sample has the same interpolate in any process."""
    t = real.flatten(1).sum(1).sigmoid()
    return gradient_penalty(critic, real, fake, *args, t=t)


def whole(seed: int, shape: tuple[int, ...], count: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, count, *shape, generator=random, dtype=torch.float64)
    return real, fake, torch.randint(4, (count,), generator=random)


def make(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    build, shape = (CRITICS | {"projection": (Projection, (12,))})[name]
    torch.manual_seed(7)
    return build().double(), shape


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def check_step(rank: int) -> None:
    """CriticStep over a process group, also with batches of unequal size."""
    for name in ("mlp", "dcgan", "projection", "no bias"):
        critic, shape = make(name)
        expected_critic = copy.deepcopy(critic)
        if name == "dcgan":
            for network in (critic, expected_critic):
                network[0].requires_grad_(False)
        if rank == 1:
            for parameter in critic.parameters():  # they are those of the first process from the beginning
                parameter.detach().zero_()
        group = dist.group.WORLD
        step = CriticStep(critic, sgd(critic.parameters()), penalty=penalty, process_group=group)
        expected_step = CriticStep(expected_critic, sgd(expected_critic.parameters()), penalty=penalty)
        for seed, first in enumerate((4, 4, 5)):
            real, fake, labels = whole(seed, shape, 8)
            mine = slice(0, first) if rank == 0 else slice(first, 8)
            args = (labels,) if name == "projection" else ()
            expected = expected_step(real, fake, *args)
            output = step(real[mine], fake[mine], *(arg[mine] for arg in args))
            assert_same(list(output), list(expected))
            assert_same(gradients(critic), gradients(expected_critic))
        assert_same(list(critic.parameters()), list(expected_critic.parameters()))

    weight = torch.full((3,), 1 + rank * 1j, dtype=torch.complex128, requires_grad=True)
    expected_weight = torch.ones(3, dtype=torch.complex128, requires_grad=True)  # that of the first process
    real, fake, _ = whole(0, (3,), 8)
    for w, samples, process_group in (
        (weight, slice(rank * 4, rank * 4 + 4), group),
        (expected_weight, slice(8), None),
    ):
        critic = partial(lambda w, x: (x * w + 1j).abs().sum(1), w)
        step = CriticStep(critic, sgd([w]), penalty=None, process_group=process_group)
        step(real[samples], fake[samples])
    assert weight.grad.abs().min() > 0
    assert_same([weight, weight.grad], [expected_weight, expected_weight.grad])

    critic, _ = make("mlp")
    with pytest.raises(ValueError, match="fake: expected 4 samples, as many as real, with a process group"):
        CriticStep(critic, sgd(critic.parameters()), penalty=None, process_group=group)(real[:4], fake[:3])
    critic, _ = make("mlp")
    step = CriticStep(critic, sgd(critic.parameters()), penalty=penalty, process_group=group)
    real, fake, _ = whole(0, (12,), 4)
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    if rank == 1:
        real[0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match="not finite"):  # in both
        step(real, fake)
    assert step.skipped == 1 and all(map(torch.equal, critic.parameters(), before))

    generator, expected_generator = nn.Linear(3, 12).double(), nn.Linear(3, 12).double()
    step = GeneratorStep(generator, critic, sgd(generator.parameters()), process_group=group)
    expected_generator.load_state_dict(generator.state_dict())
    expected_step = GeneratorStep(expected_generator, critic, sgd(expected_generator.parameters()))
    latent, _, _ = whole(3, (3,), 8)
    assert_same([step(latent[rank * 4 : rank * 4 + 4])], [expected_step(latent)])
    assert_same(list(generator.parameters()), list(expected_generator.parameters()))


def check_ddp(rank: int, static_graph: bool) -> None:
    for name in ("mlp", "dcgan", "layer norm", "projection"):
        critic, shape = make(name)
        expected_critic = copy.deepcopy(critic)
        loss = DistributedDataParallel(CriticLoss(critic, penalty=penalty), static_graph=static_graph)
        expected_loss = CriticLoss(expected_critic, penalty=penalty)
        optimizers = [sgd(c.parameters()) for c in (critic, expected_critic)]
        for seed in range(3):
            real, fake, labels = whole(seed, shape, 8)
            mine = slice(rank * 4, rank * 4 + 4)
            args = (labels,) if name == "projection" else ()
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss(real[mine], fake[mine], *(arg[mine] for arg in args)).loss.backward()
            expected_loss(real, fake, *args).loss.backward()
            assert_same(gradients(critic), gradients(expected_critic))
            for optimizer in optimizers:
                optimizer.step()
        assert_same(list(critic.parameters()), list(expected_critic.parameters()))


def check_ddp_with_the_penalty_outside(rank: int) -> None:
    """As docs/step.md says: reduced along with the loss in one backward, not in a backward of its own."""
    for backwards in (1, 2):
        critic, shape = make("mlp")
        expected_critic = copy.deepcopy(critic)
        wrapped = DistributedDataParallel(critic)
        real, fake, _ = whole(0, shape, 8)
        mine = slice(rank * 4, rank * 4 + 4)
        loss = critic_loss(*wrapped(torch.cat([real[mine], fake[mine]])).chunk(2))
        outside = penalty(critic, real[mine], fake[mine])
        if backwards == 1:
            (loss + outside).backward()
        else:
            loss.backward()
            outside.backward()
        CriticLoss(expected_critic, penalty=penalty)(real, fake).loss.backward()
        error = max(
            (a - b).abs().max().item() for a, b in zip(gradients(critic), gradients(expected_critic), strict=True)
        )
        assert (error < 1e-12) == (backwards == 1), error


def check_fsdp(rank: int) -> None:
    for name in ("mlp", "dcgan", "layer norm"):
        critic, shape = make(name)
        expected_critic = copy.deepcopy(critic)
        loss = CriticLoss(critic, penalty=penalty)
        fully_shard(loss, mesh=init_device_mesh("cpu", (PROCESSES,)))
        expected_loss = CriticLoss(expected_critic, penalty=penalty)
        make_optimizer = sgd if name == "dcgan" else partial(RMSprop, lr=1e-2, clip=0.1)
        optimizers = [make_optimizer(c.parameters()) for c in (critic, expected_critic)]
        for seed in range(3):
            real, fake, _ = whole(seed, shape, 8)
            mine = slice(rank * 4, rank * 4 + 4)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss(real[mine], fake[mine]).loss.backward()
            expected_loss(real, fake).loss.backward()
            assert_same([g.full_tensor() for g in gradients(critic)], gradients(expected_critic))
            for optimizer in optimizers:
                optimizer.step()
        clip_weights_(critic, 0.05)
        clip_weights_(expected_critic, 0.05)
        assert_same([p.full_tensor() for p in critic.parameters()], list(expected_critic.parameters()))


def check_fsdp_by_layers(rank: int) -> None:
    """PyTorch would raise an error after the first backward, or leave out gradients where nothing is resharded then."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for reshard in (True, False):
        critic, shape = make("mlp")
        loss = CriticLoss(critic, penalty=penalty)
        for sharded in (critic[0], critic[2], loss):
            fully_shard(sharded, mesh=mesh).set_reshard_after_backward(reshard)
        real, fake, _ = whole(0, shape, 4)
        with pytest.raises(ValueError, match="^critic: 0 is sharded by itself, .* shard the CriticLoss as a whole"):
            loss(real, fake)

    critic, shape = make("mlp")
    expected_critic = copy.deepcopy(critic)
    for sharded in (critic[0], critic[2], critic):
        fully_shard(sharded, mesh=mesh)
    real, fake, _ = whole(0, shape, 8)
    mine = slice(rank * 4, rank * 4 + 4)
    CriticLoss(critic, penalty=None)(real[mine], fake[mine]).loss.backward()  # which needs no second derivative
    CriticLoss(expected_critic, penalty=None)(real, fake).loss.backward()
    assert_same([g.full_tensor() for g in gradients(critic)], gradients(expected_critic))


@pytest.mark.parametrize(
    "check",
    [
        check_step,
        partial(check_ddp, static_graph=False),
        partial(check_ddp, static_graph=True),
        check_ddp_with_the_penalty_outside,
        check_fsdp,
        check_fsdp_by_layers,
    ],
    ids=["step", "DDP", "DDP with a static graph", "DDP, penalty outside", "FSDP", "FSDP by layers"],
)
def test_two_processes(check: Callable[[int], None], tmp_path: Path) -> None:
    in_two_processes(check, tmp_path)
