"""Whether real and fake samples may be scored in one batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast._checks import module_of


@torch.no_grad()
def rows_are_independent(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> bool | None:
    """Whether scoring both in one batch is the same as scoring one after the other: each row has scores of its own,
    which do not change in any bit when the other half of the batch does, nor beyond rounding when there is none, and
    scoring leaves the critic's buffers and the random state alone.

    None where these samples cannot tell: the scores are all alike, or not finite. A critic that cannot be asked may not
    (it is no Module, whose buffers are known; it takes one size of batch alone; it runs inside a transform). Buffers
    and random state are put back.
    """
    module = module_of(critic)
    if module is None:
        return False
    owners = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    values = [buffer.clone() for _, _, buffer in owners]
    halves = [len(real), len(fake)]
    with torch.random.fork_rng(devices=[real.device] if real.device.type == "cuda" else []):
        random_state = _random_state(real.device)
        try:
            alone = critic(fake)
            if not alone.isfinite().all() or alone.amax() == alone.amin():
                return None
            of_real, of_fake = critic(torch.cat([real, fake])).split(halves)
            beside_another_fake, _ = critic(torch.cat([real, 1 - 2 * fake])).split(halves)
            _, beside_another_real = critic(torch.cat([1 - 2 * real, fake])).split(halves)
            return (
                bool((of_fake - alone).abs().max() <= 0.1 * alone.abs().max())
                and torch.equal(of_real, beside_another_fake)
                and torch.equal(of_fake, beside_another_real)
                and torch.equal(_random_state(real.device), random_state)
                and all(
                    part._buffers.get(name) is buffer and torch.equal(buffer, value)
                    for (part, name, buffer), value in zip(owners, values, strict=True)
                )
            )
        except Exception:  # an error of the critic's own is met again when it is called with each half
            return False
        finally:
            for (part, name, buffer), value in zip(owners, values, strict=True):
                part._buffers[name] = buffer.copy_(value)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
