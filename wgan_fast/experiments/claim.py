"""What an experiment says and finds: formulas and words, figures, and measured numbers beside the expected ones."""

import math
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY


class Number(NamedTuple):
    """A measured number and the value that the theory predicts.

    ``relation`` is the expected relation of ``measured`` to ``expected``: ``=``, ``>=`` or ``<=``, each up to
    the absolute ``tolerance``. NaN never satisfies it. ``of_code`` marks a number that is true by construction, so
    that it can refute the code, but not the theory.
    """

    what: str
    measured: float
    expected: float
    tolerance: float = 0.0
    relation: Literal["=", ">=", "<="] = "="
    of_code: bool = False

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

    figures: list[Figure]
    numbers: list[Number]


class Story(NamedTuple):
    """The words of an experiment, each module's ``STORY``."""

    plain: str  #: the claim in one sentence, without symbols
    formulas: tuple[str, ...]  #: in the syntax of matplotlib's mathtext, without dollar signs
    refuted_by: str  #: what would show the claim to be wrong
    papers: tuple[str, ...]  #: keys of PAPERS
    caveats: str = ""  #: what the experiment does not show


#: Title and address of each source.
PAPERS = {
    "gan": ("Goodfellow et al., Generative Adversarial Networks, 2014", "https://arxiv.org/abs/1406.2661"),
    "principled": (
        "Arjovsky and Bottou, Towards Principled Methods for Training Generative Adversarial Networks, 2017",
        "https://arxiv.org/abs/1701.04862",
    ),
    "wgan": ("Arjovsky, Chintala and Bottou, Wasserstein GAN, 2017", "https://arxiv.org/abs/1701.07875"),
    "wgan-gp": (
        "Gulrajani et al., Improved Training of Wasserstein GANs, 2017",
        "https://arxiv.org/abs/1704.00028",
    ),
    "r1": (
        "Mescheder, Geiger and Nowozin, Which Training Methods for GANs do actually Converge?, 2018",
        "https://arxiv.org/abs/1801.04406",
    ),
    "mmd": ("Gretton et al., A Kernel Two-Sample Test, 2012", "https://jmlr.org/papers/v13/gretton12a.html"),
    "ipm": (
        "Sriperumbudur et al., On Integral Probability Metrics, phi-Divergences and Binary Classification, 2009",
        "https://arxiv.org/abs/0901.2698",
    ),
    "root-js": (
        "Endres and Schindelin, A New Metric for Probability Distributions, 2003",
        "https://doi.org/10.1109/TIT.2003.813506",
    ),
    "twonn": (
        "Facco et al., Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information, 2017",
        "https://arxiv.org/abs/1803.06992",
    ),
}


#: Line styles and markers repeat the distinction, for black-and-white print.
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dvx+"


def axes(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.4) -> tuple[list[Figure], list[Axes]]:
    """Figures of one panel each, row by row, and their panels: on a page they stack as its width wants."""
    figures = [Figure(figsize=(width, height), layout="constrained") for _ in range(columns * rows)]
    return figures, [figure.subplots() for figure in figures]
