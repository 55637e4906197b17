"""The result of an experiment: a figure, and measured numbers beside the expected ones."""

import math
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY


class Number(NamedTuple):
    """A measured number and the value that the theory predicts.

    ``relation`` is the expected relation of ``measured`` to ``expected``: ``=``, ``>=`` or ``<=``, each up to
    the absolute ``tolerance``. NaN never satisfies it.
    """

    what: str
    measured: float
    expected: float
    tolerance: float = 0.0
    relation: Literal["=", ">=", "<="] = "="

    @property
    def holds(self) -> bool:
        if self.relation == ">=":
            return self.measured >= self.expected - self.tolerance
        if self.relation == "<=":
            return self.measured <= self.expected + self.tolerance
        if math.isinf(self.expected):
            return self.measured == self.expected
        return abs(self.measured - self.expected) <= self.tolerance

    @property
    def wanted(self) -> str:
        """The condition on ``measured``, in short: ``0.5 ± 0.01``, ``>= 1 - 0.01``."""
        sign = {"=": "±", ">=": "-", "<=": "+"}[self.relation]
        wanted = f"{self.expected:.4g}" + (f" {sign} {self.tolerance:.2g}" if self.tolerance else "")
        return wanted if self.relation == "=" else f"{self.relation} {wanted}"


class Finding(NamedTuple):
    """The return value of an experiment's ``run``."""

    figure: Figure
    numbers: list[Number]


#: Line styles and markers repeat the distinction, for black-and-white print.
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dvx+"


def axes(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")  # no window, no global state
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)
