"""What looks wrong in a run, in words."""

from collections.abc import Sequence

from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.run.history import Row

ROWS = 10  # of the history: what lasts shorter is no illness


class Alarms:
    """Looks at the history; says each thing once."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._said: set[str] = set()

    def new(self, rows: Sequence[Row]) -> list[str]:
        """What the latest rows show and has not been said."""
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

        beyond = float("inf")
        if lasting("wasserstein", -beyond, 0):
            found.append(
                "the Wasserstein estimate stays negative: the critic is under-trained; more updates per step "
                "(--n-critic) or a higher learning rate may help"
            )
        estimates = [row["wasserstein"] for row in rows if "wasserstein" in row]
        if _rises(estimates[ROWS:]):  # in the first rows the critic learns what there is to see
            found.append(
                "the Wasserstein estimate keeps rising: the generator does not follow, or the critic's slope is not "
                "held; more updates of the critic (--n-critic), a lower learning rate or a heavier penalty may help"
            )
        if lasting("jensen_shannon", 0.69, beyond):
            found.append(
                "the discriminator is nearly perfect (its divergence is log 2), so that the generator learns little: "
                "a penalty (dragan, r1) or a Wasserstein GAN (wgan-gp) may help"
            )
        if lasting("relativistic_divergence", 0.69, beyond):
            found.append(
                "the critic tells nearly every generated sample from its real partner (the divergence is log 2): a "
                "heavier penalty (--penalty-weight) or a lower learning rate may help"
            )
        target = ALGORITHMS[config.algorithm].target
        weight = config.penalty_weight or 0.0
        if (
            target
            and weight >= 1
            and any(lasting("gradient_norm", *limits) for limits in ((0, target / 2), (2 * target, beyond)))
        ):
            found.append(
                f"the critic's gradient norms stay far from {target:g}: a heavier penalty (--penalty-weight) or more "
                "updates of the critic (--n-critic) may help"
            )
        if lasting("clip_saturation", 0.9, 1):
            found.append(
                "nine in ten of the critic's weights lie at the bound of clipping, so that it is nearly a simple "
                "function: another bound (--clip) or a penalty instead (wgan-gp) may help"
            )
        return found


def _rises(values: list[float]) -> bool:
    """By a fifth and more over twenty rows, twice in a row."""
    early, middle, late = (sum(values[-end - ROWS : -end or None]) / ROWS for end in (4 * ROWS, 2 * ROWS, 0))
    return len(values) >= 5 * ROWS and 0 < 1.44 * early < 1.2 * middle < late
