"""Whether the rows of a critic's batch are independent, so that real and fake samples can be scored in one batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast._checks import module_of
from wgan_fast._torch import without_parametrization_cache

ROUNDING = 64  # in units of the dtype's epsilon: a sum of n terms rounds by about the root of n of them


@torch.no_grad()
def rows_are_independent(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> bool | None:
    """Whether scoring real and fake samples in one batch equals scoring one after the other. A probe of four forwards
    checks that

    - the scores of one half of a batch stay bitwise the same when the other half changes;
    - the scores of fake samples alone equal those in the common batch, at other places of a larger batch, up to the
      rounding of a sum of 4,096 terms;
    - scoring changes neither the critic's buffers nor PyTorch's random state.

    False: rows are coupled, or the critic is not a Module, or the probe raised (a critic for one batch size, say, or
    inside a transform). None: the scores are constant or not finite, so that these samples do not decide. Buffers and
    random state are restored.
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
    with (
        without_parametrization_cache(),
        torch.random.fork_rng(devices=[real.device] if real.device.type == "cuda" else []),
    ):
        random_state = _random_state(real.device)
        try:
            alone = critic(fake)
            if not alone.isfinite().all() or alone.amax() == alone.amin():
                return None
            of_real, of_fake = critic(torch.cat([real, fake])).split(halves)
            beside_another_fake, _ = critic(torch.cat([real, 1 - 2 * fake])).split(halves)
            _, beside_another_real = critic(torch.cat([1 - 2 * real, fake])).split(halves)
            return (
                bool((of_fake - alone).abs().max() <= ROUNDING * _epsilon(real, alone) * alone.abs().max())
                and torch.equal(of_real, beside_another_fake)
                and torch.equal(of_fake, beside_another_real)
                and torch.equal(_random_state(real.device), random_state)
                and all(
                    part._buffers.get(name) is buffer and torch.equal(buffer, value)
                    for (part, name, buffer), value in zip(owners, values, strict=True)
                )
            )
        except Exception:  # an error of the critic itself is raised again when each half is scored
            return False
        finally:
            for (part, name, buffer), value in zip(owners, values, strict=True):
                part._buffers[name] = buffer.copy_(value)


def _epsilon(samples: Tensor, scores: Tensor) -> float:
    """The relative rounding of the critic's arithmetic."""
    device = samples.device.type
    dtypes = {samples.dtype, scores.dtype}
    if torch.is_autocast_enabled(device):
        dtypes.add(torch.get_autocast_dtype(device))
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
