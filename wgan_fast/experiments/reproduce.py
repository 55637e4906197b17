"""Runs experiments and saves the results: figures, formulas and a JSON file each, and an HTML page of all."""

import importlib
import importlib.util
import json
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image

from wgan_fast._checks import ArgumentFileExistsError, ArgumentOSError, ArgumentValueError
from wgan_fast.train.run.atomic import whole_file

from . import CHAPTERS, NAMES, page
from .claim import Finding, Number, Story

#: SVG files that are equal for equal figures: ids that do not depend on the process, and no date.
SVG: dict[Any, Any] = {"svg.hashsalt": "wgan_fast", "svg.fonttype": "path"}


class Outcome(NamedTuple):
    """The result of one experiment."""

    name: str
    claim: str
    numbers: list[Number]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(number.holds for number in self.numbers)


def experiment(name: str) -> ModuleType:
    """The experiment's module.

    Raises:
        ValueError: there is no experiment of this name.
        ModuleNotFoundError: a package that it needs is not installed.
    """
    if name not in NAMES:
        raise ArgumentValueError("name", f"expected one of {', '.join(NAMES)}, got {name!r}")
    return importlib.import_module(f".{name}", __package__)


def claim_of(module: ModuleType) -> str:
    """The claim: the first paragraph of the module's docstring."""
    return _paragraphs(module)[0]


def how_of(module: ModuleType) -> str:
    """How the claim is tested: the other paragraphs, an empty line between them."""
    return "\n\n".join(_paragraphs(module)[1:])


def _paragraphs(module: ModuleType) -> list[str]:
    """Those of the docstring, of one line each; points of a list keep their own lines."""
    parts = (module.__doc__ or "").strip().split("\n\n")
    return [re.sub(r"\s*\n(?!- )\s*", " ", part.strip()) for part in parts]


def story_of(module: ModuleType) -> Story:
    """The module's words; those of a module without any are empty."""
    story: Story = getattr(module, "STORY", Story("", (), "", ()))
    return story


def prepare(names: Iterable[str], out: Path) -> None:
    """Checks that all experiments can run and creates the folder ``out``. Called before the first experiment.

    Raises:
        ValueError: there is no experiment of one of the names.
        ModuleNotFoundError: a package of the extra ``wgan_fast[train]`` is not installed.
        OSError: ``out`` is a file, cannot be created, or is not writable.
    """
    if importlib.util.find_spec("ot") is None:  # wgan_fast.distances imports it at the first call only
        raise ModuleNotFoundError("No module named 'ot'", name="ot")
    for name in names:
        experiment(name)
    if out.exists() and not out.is_dir():
        raise ArgumentFileExistsError("out", f"expected a folder, {out} is a file")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentOSError("out", f"the folder {out} cannot be created: {error.strerror}") from error
    try:
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ArgumentOSError("out", f"the folder {out} cannot be written to: {error.strerror}") from error


def run(name: str, out: Path, seed: int = 0, *, small: bool = False) -> Outcome:
    """Runs an experiment; writes ``<name>.json``, its figures and formulas as SVG, and updates ``index.html``.

    On one machine the same seed gives the same numbers, independent of earlier runs and of the number of cores.

    Args:
        name: one of :data:`wgan_fast.experiments.NAMES`.
        out: an existing folder.
        seed: the seed of all random numbers.
        small: train briefly, as the tests do; numbers may then miss the expected values.
    """
    module = experiment(name)
    start = time.perf_counter()
    with _seeded(seed):
        finding: Finding = module.run(seed, small=small)
    outcome = Outcome(name, claim_of(module), finding.numbers, time.perf_counter() - start)
    record = _record(outcome, finding, module, seed, small)
    for (file_name, _), figure in zip(record["figures"], finding.figures, strict=True):
        with whole_file(out / file_name) as file, matplotlib.rc_context(SVG):
            figure.savefig(file, format="svg", metadata={"Date": None})
    for file_name, formula in record["formulas"]:
        with whole_file(out / file_name) as file, matplotlib.rc_context(SVG | {"mathtext.fontset": "stix"}):
            math_to_image(f"${formula}$", str(file), prop=FontProperties(size=15), format="svg")
    with whole_file(out / f"{name}.json") as file:
        file.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    with whole_file(out / "index.html") as file:
        file.write_text(page.render(CHAPTERS, _records(out)), encoding="utf-8")
    return outcome


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds PyTorch and uses one thread; restores random state and threads afterwards. A second thread would change the
    order of sums, and networks of this size gain nothing from it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _record(outcome: Outcome, finding: Finding, module: ModuleType, seed: int, small: bool) -> dict[str, Any]:
    name, story = outcome.name, story_of(module)
    return {
        "claim": outcome.claim,
        "how": how_of(module),
        "plain": story.plain,
        "formulas": [[f"{name}_formula_{i}.svg", formula] for i, formula in enumerate(story.formulas, 1)],
        "figures": [[f"{name}_{i}.svg", _described(figure)] for i, figure in enumerate(finding.figures, 1)],
        "refuted_by": story.refuted_by,
        "caveats": story.caveats,
        "papers": list(story.papers),
        "holds": bool(outcome.holds),
        "numbers": [_number(number) for number in outcome.numbers],
        "seed": seed,
        "small": small,
        "seconds": round(outcome.seconds, 2),
        "torch": torch.__version__,
    }


def _described(figure: Figure) -> str:
    """A figure in words, for those who cannot see it."""
    panel = figure.axes[0]
    words = [panel.get_title().replace("\n", ", ")]
    if panel.get_ylabel():
        words.append(f"{panel.get_ylabel()} against {panel.get_xlabel()}")
    labels = panel.get_legend_handles_labels()[1]
    return ": ".join(words) + (f"; {', '.join(labels)}" if labels else "")


def _number(number: Number) -> dict[str, Any]:
    return {
        "what": number.what,
        "measured": _value(number.measured),
        "expected": _value(number.expected),
        "tolerance": _value(number.tolerance),
        "relation": number.relation,
        "of_code": number.of_code,
        "holds": bool(number.holds),
    }


def _value(value: float) -> float | str:
    """The value; infinity and NaN, which JSON lacks, as a string."""
    return float(value) if math.isfinite(value) else str(float(value))


def _records(out: Path) -> dict[str, dict[str, Any]]:
    """The records of all experiments in the folder."""
    files = {name: out / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
