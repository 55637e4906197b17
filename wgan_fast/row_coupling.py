"""Whether real and fake samples may be scored in one batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def scores_rows_alone(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> bool:
    """Whether scoring both in one batch is the same as scoring one after the other: each row has scores of its own,
    which do not change in any bit when the other half of the batch does, nor beyond rounding when there is none, and
    scoring leaves the critic's buffers and the random state alone.

    A critic that cannot be asked (it takes one size of batch alone, it runs inside a transform) may not. Buffers and
    random state are put back.
    """
    module = getattr(critic, "__self__", critic)
    buffers = list(module.buffers()) if isinstance(module, nn.Module) else []
    values = [buffer.clone() for buffer in buffers]
    halves = [len(real), len(fake)]
    with torch.random.fork_rng(devices=[real.device] if real.device.type == "cuda" else []):
        random_state = _random_state(real.device)
        try:
            of_real, of_fake = critic(torch.cat([real, fake])).split(halves)
            beside_another_fake, _ = critic(torch.cat([real, 1 - 2 * fake])).split(halves)
            _, beside_another_real = critic(torch.cat([1 - 2 * real, fake])).split(halves)
            alone = critic(fake)
            return (
                bool((of_fake - alone).abs().max() <= 0.02 * alone.abs().max())
                and torch.equal(of_real, beside_another_fake)
                and torch.equal(of_fake, beside_another_real)
                and torch.equal(_random_state(real.device), random_state)
                and all(map(torch.equal, buffers, values))
            )
        except Exception:  # an error of the critic's own is met again when it is called with each half
            return False
        finally:
            for buffer, value in zip(buffers, values, strict=True):
                buffer.copy_(value)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
