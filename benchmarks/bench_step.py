"""The critic step against the textbook's, a compiled functional one, and JAX."""

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch

import rivals
from conftest import Comparison
from costs import FOR_CPU, FOR_GPU, flops_of, peak_bytes_of
from limits import products
from rehearsal import REHEARSED
from wgan_fast import CriticStep
from workloads import N_CRITIC, workload

VARIANTS = ("graph", "bfloat16", "eager", "jax", "jax-tf32", "compile")  # a report that is killed has lost the last
COMPILED = ("toy", "mnist")  # two compilations take a minute, so the others are slow


def has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cases() -> Iterator[Any]:
    for name, variant in itertools.product(dict.fromkeys([*FOR_CPU, *FOR_GPU]), VARIANTS):
        slow = variant == "compile" and name in FOR_CPU and name not in COMPILED
        yield pytest.param(name, variant, marks=pytest.mark.slow if slow else ())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize(("name", "variant"), list(cases()))
def bench_critic_step(compare: Comparison, request: pytest.FixtureRequest, name: str, variant: str) -> None:
    """bfloat16 is autocast, eager on the CPU and a CUDA graph on a GPU, against textbooks in float32 and in bfloat16.
    The textbook, and ours on the CPU, get PyTorch's default Adam; our step then switches to the fused one. Baselines:
    "fused" is the textbook with the fused Adam, "joint" also scores real and fake samples in one batch, and "captured"
    is "fused" in a CUDA graph. "products" is what ours cannot be faster than. On a GPU the updates are timed in fives,
    as in WGAN-GP's training: the host prepares one while the device computes the one before. Those of the ResNet take
    so long that it makes no difference.
    """
    on_gpu = compare.device.type == "cuda"
    if name not in (FOR_GPU if on_gpu else FOR_CPU) or (variant in ("graph", "jax-tf32") and not on_gpu):
        pytest.skip("for the other device")
    if variant == "bfloat16" and not on_gpu and not has_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16, and emulates it many times slower than float32")
    if variant == "compile" and REHEARSED:
        pytest.skip("the compiler needs a GPU")
    if variant.startswith("jax"):  # with the same precision on both sides
        request.getfixturevalue("restored_precision")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = variant == "jax-tf32"
    make, shape = workload(name)
    critic = make().to(compare.device)
    real, fake = torch.randn(2, *shape, device=compare.device)
    best = "graph" if on_gpu else "eager"
    backend = {"bfloat16": best, "jax": best, "jax-tf32": best}.get(variant, variant)
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
    if variant.startswith("jax"):  # alone with ours: its threads and PyTorch's compete for the cores
        in_jax = rivals.jax_step(critic, real, fake, "tensorfloat32" if variant == "jax-tf32" else "highest")
        if in_jax is None:
            pytest.skip("JAX is missing, or does not know a layer")
        baselines = {"jax": in_jax}
    if variant in ("compile", "graph"):
        baselines["functional"] = rivals.functional_compiled(deepcopy(critic), real, fake)
    if variant == "compile" and (traced := rivals.traced_compiled(deepcopy(critic), real, fake)):
        baselines["traced"] = traced
    if variant == "graph":
        by_hand = rivals.textbook(deepcopy(critic), real, fake, fused=True, capturable=True)
        baselines["captured"] = rivals.captured(by_hand)
    if variant == "eager" and not on_gpu:  # there the host's time would count
        baselines["products"] = products(ours)
    compare(ours, calls=N_CRITIC if on_gpu and name != "resnet" else 1, **baselines)
    if variant == "eager":
        with torch.no_grad():
            forward = flops_of(lambda: critic(real))
        # Call 2^n also runs the probe of the rows' independence; of two consecutive calls one does not.
        ours_count = min(flops_of(ours) for _ in range(2))
        compare.count("forwards", ours=ours_count / forward, textbook=flops_of(textbook) / forward)
    if variant == "eager":  # a captured graph keeps its memory
        of_each = {"ours": ours, "textbook": textbook}
        compare.count("peak_bytes", **{who: peak_bytes_of(what, compare.device) for who, what in of_each.items()})
