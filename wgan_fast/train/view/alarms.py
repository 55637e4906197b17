"""Warnings about symptoms in a run's history: an untrained critic, vanishing gradients, saturated clipping."""

from collections.abc import Sequence

from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.run.history import Row

ROWS = 10  # rows of the history over which a symptom must last


class Alarms:
    """Checks the history. Each warning is given once."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._said: set[str] = set()

    def new(self, rows: Sequence[Row]) -> list[str]:
        """The warnings that the latest rows cause and that were not given before."""
        found = [message for message in self._look(rows) if message not in self._said]
        self._said.update(found)
        return found

    def _look(self, rows: Sequence[Row]) -> list[str]:
        latest = rows[-ROWS:]
        if len(latest) < ROWS:
            return []
        config, found = self._config, []

        def lasting(name: str, low: float, high: float) -> bool:
            return all(name in row and low <= row[name] <= high for row in latest)

        infinity = float("inf")
        if lasting("wasserstein", -infinity, 0):
            found.append(
                "the Wasserstein estimate stays negative: the critic is under-trained; more updates per step "
                "(--n-critic) or a higher learning rate may help"
            )
        estimates = [row["wasserstein"] for row in rows if "wasserstein" in row]
        if _rises(estimates[ROWS:]):  # the first rows rise while the critic learns
            found.append(
                "the Wasserstein estimate keeps rising: the generator does not follow, or the critic's slope is not "
                "bounded; more updates of the critic (--n-critic), a lower learning rate or a heavier penalty may help"
            )
        if lasting("jensen_shannon", 0.69, infinity):
            found.append(
                "the discriminator is nearly perfect (its divergence is log 2), so the generator learns little: "
                "a penalty (dragan, r1) or a Wasserstein GAN (wgan-gp) may help"
            )
        if lasting("relativistic_divergence", 0.69, infinity):
            found.append(
                "the critic tells nearly every generated sample from its real partner (the divergence is log 2): a "
                "heavier penalty (--penalty-weight) or a lower learning rate may help"
            )
        target = ALGORITHMS[config.algorithm].target
        weight = config.penalty_weight or 0.0
        if (
            target
            and weight >= 1
            and any(lasting("gradient_norm", *limits) for limits in ((0, target / 2), (2 * target, infinity)))
        ):
            found.append(
                f"the critic's gradient norms stay far from {target:g}: a heavier penalty (--penalty-weight) or more "
                "updates of the critic (--n-critic) may help"
            )
        if lasting("clip_saturation", 0.9, 1):
            found.append(
                "90 % of the critic's weights lie at the clipping bound, which makes the critic too simple a function: "
                "another bound (--clip) or a penalty instead (wgan-gp) may help"
            )
        return found


def _rises(values: list[float]) -> bool:
    """Whether the mean of ten rows rose by at least a fifth over twenty rows, twice in succession."""
    early, middle, late = (sum(values[-end - ROWS : -end or None]) / ROWS for end in (4 * ROWS, 2 * ROWS, 0))
    return len(values) >= 5 * ROWS and 0 < 1.44 * early < 1.2 * middle < late
