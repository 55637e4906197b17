"""The critic step with R1 and with R1 + R2, whose penalised samples are scored too, against the strongest eager form;
and on critics built like published ones, against their own updates.
"""

import functools
from copy import deepcopy

import pytest
import torch

import rivals
from conftest import Comparison
from costs import CRITICS, FOR_CPU, FOR_GPU, Penalty, flops_of, peak_bytes_of
from limits import products
from published import R3GANCritic, StyleGAN2Critic, r3gan_gradients, stylegan2_gradients
from wgan_fast import CriticStep, discriminator_loss, r1_penalty, r1_r2_penalty, relativistic_critic_loss

PENALTIES: dict[str, Penalty] = {"R1": r1_penalty, "R1 + R2": r1_r2_penalty}
#: critic -> (how it is made, labels or not, its published gradients, what they are here)
PUBLISHED = {
    "R3GAN": (R3GANCritic, True, r3gan_gradients, {"penalty": r1_r2_penalty, "loss": relativistic_critic_loss}),
    "StyleGAN2-ADA": (StyleGAN2Critic, False, stylegan2_gradients, {"penalty": r1_penalty, "loss": discriminator_loss}),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", dict.fromkeys([*FOR_CPU, *FOR_GPU]))
def bench_scored_penalty(compare: Comparison, name: str, penalty: str) -> None:
    """Baseline "shared": one forward of each batch, one backward, the fused Adam."""
    on_gpu = compare.device.type == "cuda"
    if name not in (FOR_GPU if on_gpu else FOR_CPU):
        pytest.skip("for the other device")
    make, shape = CRITICS[name]
    critic = make().to(compare.device)
    real, fake = torch.randn(2, *shape, device=compare.device)
    shared = rivals.shared(deepcopy(critic), real, fake, at_fake=penalty == "R1 + R2")
    optimizer = rivals.adam(critic, fused=True, capturable=on_gpu)
    step = CriticStep(critic, optimizer, penalty=PENALTIES[penalty], loss=discriminator_loss)
    ours = functools.partial(step, real, fake)
    limit = {} if on_gpu else {"products": products(ours)}  # there the host's time would count
    compare(ours, shared=shared, **limit)
    with torch.no_grad():
        forward = flops_of(lambda: critic(real))
    if not on_gpu:  # a replayed graph dispatches nothing, and keeps its memory
        compare.count("forwards", ours=flops_of(ours) / forward, shared=flops_of(shared) / forward)
        peaks = {who: peak_bytes_of(what, compare.device) for who, what in {"ours": ours, "shared": shared}.items()}
        compare.count("peak_bytes", **peaks)


@pytest.mark.parametrize("name", PUBLISHED)
def bench_published_update(compare: Comparison, name: str) -> None:
    """32 x 32 images, batch 32; "published" takes the fused Adam's step, too."""
    make, labelled, gradients, options = PUBLISHED[name]
    critic = make().to(compare.device)
    real, fake = torch.randn(2, 32, 3, 32, 32, device=compare.device)
    labels = (torch.arange(32, device=compare.device) % 10,) if labelled else ()
    published = rivals.with_adam(deepcopy(critic), gradients, real, fake, *labels)
    on_gpu = compare.device.type == "cuda"
    step = CriticStep(critic, rivals.adam(critic, fused=True, capturable=on_gpu), **options)
    ours = functools.partial(step, real, fake, *labels)
    compare(ours, published=published, **({} if on_gpu else {"products": products(ours)}))
