"""The whole update of a critic, against the textbook's, a functional step in the compiler, and JAX."""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch

import rivals
from conftest import Comparison
from costs import CRITICS, GPU_CRITICS
from wgan_fast import CriticStep

VARIANTS = ("eager", "bfloat16", "compile", "graph")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", dict.fromkeys([*CRITICS, *GPU_CRITICS]))
def bench_critic_step(compare: Comparison, name: str, variant: str) -> None:
    """bfloat16 is autocast, eager on the CPU and captured on a GPU, against the textbook in float32."""
    on_gpu = compare.device.type == "cuda"
    critics = GPU_CRITICS if on_gpu else CRITICS
    if name not in critics or (variant == "graph" and not on_gpu):
        pytest.skip("for the other device")
    make, shape = critics[name]
    critic = make().to(compare.device)
    real, fake = torch.randn(2, *shape, device=compare.device)
    backend = {"bfloat16": "graph" if on_gpu else "eager"}.get(variant, variant)
    optimizer = rivals.adam(critic, fused=True, capturable=on_gpu)
    step = CriticStep(critic, optimizer, backend=backend)
    autocast = torch.autocast(compare.device.type, torch.bfloat16) if variant == "bfloat16" else nullcontext()

    def ours() -> None:
        with autocast:
            step(real, fake)

    baselines = {"textbook": rivals.textbook(deepcopy(critic), real, fake)}
    if variant != "bfloat16" and (in_jax := rivals.jax_step(critic, real, fake)):  # the rivals compute in float32
        baselines["jax"] = in_jax
    if variant in ("compile", "graph"):
        baselines["functional"] = rivals.functional_compiled(deepcopy(critic), real, fake)
    compare(ours, **baselines)
    compare.benchmark.extra_info["mean_over"] = f"critic step, {compare.device.type}, {variant}"
