"""The whole update of a critic, against the textbook's, a functional step in the compiler, and JAX."""

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch

import rivals
from conftest import Comparison
from costs import GPU_CRITICS, flops_of, peak_bytes_of
from wgan_fast import CriticStep
from wgan_fast.bench import CRITICS

VARIANTS = ("eager", "jax", "bfloat16", "compile", "graph")
COMPILED = ("toy", "mnist")  # two compilations take a minute, so the others are slow


def has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cases() -> Iterator[Any]:
    for name, variant in itertools.product(dict.fromkeys([*CRITICS, *GPU_CRITICS]), VARIANTS):
        slow = variant == "compile" and name in CRITICS and name not in COMPILED
        yield pytest.param(name, variant, marks=pytest.mark.slow if slow else ())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize(("name", "variant"), list(cases()))
def bench_critic_step(compare: Comparison, name: str, variant: str) -> None:
    """bfloat16 is autocast, eager on the CPU and captured on a GPU, against textbooks in float32 and in bfloat16. The
    optimizer is PyTorch's Adam as it comes, for the textbook and, on the CPU, for ours, which makes it a fused one;
    "fused" is a textbook that asks for that, "joint" scores real and fake samples in one batch as well, and "captured"
    is the fused one in a CUDA graph of its own.
    """
    on_gpu = compare.device.type == "cuda"
    critics = GPU_CRITICS if on_gpu else CRITICS
    if name not in critics or (variant == "graph" and not on_gpu):
        pytest.skip("for the other device")
    if variant == "bfloat16" and not on_gpu and not has_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16, and emulates it many times slower than float32")
    make, shape = critics[name]
    critic = make().to(compare.device)
    real, fake = torch.randn(2, *shape, device=compare.device)
    best = "graph" if on_gpu else "eager"
    backend = {"bfloat16": best, "jax": best}.get(variant, variant)
    adam = rivals.adam(critic, fused=True, capturable=True) if on_gpu else rivals.adam(critic)
    step = CriticStep(critic, adam, backend=backend)
    autocast = torch.autocast(compare.device.type, torch.bfloat16) if variant == "bfloat16" else nullcontext()

    def ours() -> None:
        with autocast:
            step(real, fake)

    textbook = rivals.textbook(deepcopy(critic), real, fake)
    baselines = {
        "textbook": textbook,
        "fused": rivals.textbook(deepcopy(critic), real, fake, fused=True),
        "joint": rivals.joint(deepcopy(critic), real, fake),
    }
    if variant == "bfloat16":
        in_bfloat16 = rivals.joint(deepcopy(critic), real, fake)

        def autocast_joint() -> None:
            with autocast:
                in_bfloat16()

        baselines["joint_bfloat16"] = autocast_joint
    if variant == "jax":  # with nothing beside it: its threads and PyTorch's take the cores from one another
        in_jax = rivals.jax_step(critic, real, fake)
        if in_jax is None:
            pytest.skip("JAX is missing, or does not know a layer")
        baselines = {"jax": in_jax}
    if variant in ("compile", "graph"):
        baselines["functional"] = rivals.functional_compiled(deepcopy(critic), real, fake)
    if variant == "graph":
        by_hand = rivals.textbook(deepcopy(critic), real, fake, fused=True, capturable=True)
        baselines["captured"] = rivals.captured(by_hand)
    compare(ours, **baselines)
    if variant == "eager":
        with torch.no_grad():
            forward = flops_of(lambda: critic(real))
        # Of two calls one does not try out whether the rows of a batch are independent, as every 2^n-th does.
        ours_count = min(flops_of(ours) for _ in range(2))
        compare.count("forwards", ours=ours_count / forward, textbook=flops_of(textbook) / forward)
    if variant == "eager":  # a captured graph's memory is set aside for good
        of_each = {"ours": ours, "textbook": textbook}
        compare.count("peak_bytes", **{who: peak_bytes_of(what, compare.device) for who, what in of_each.items()})
