"""Runs experiments and saves the results: a PNG and a JSON file each, and an HTML page of all."""

import html
import importlib
import importlib.util
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from wgan_fast._checks import ArgumentFileExistsError, ArgumentOSError, ArgumentValueError
from wgan_fast.train.run.atomic import whole_file

from . import NAMES
from .claim import Finding, Number


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
    return " ".join((module.__doc__ or "").strip().partition("\n\n")[0].split())


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
    """Runs an experiment; writes ``<name>.png`` and ``<name>.json`` to a folder, and updates its ``index.html``.

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
    with whole_file(out / f"{name}.png") as file:
        finding.figure.savefig(file, dpi=150)
    with whole_file(out / f"{name}.json") as file:
        file.write_text(json.dumps(_record(outcome, seed, small), indent=1, allow_nan=False) + "\n")
    with whole_file(out / "index.html") as file:
        file.write_text(_page(out), encoding="utf-8")
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


def _record(outcome: Outcome, seed: int, small: bool) -> dict[str, Any]:
    return {
        "claim": outcome.claim,
        "holds": bool(outcome.holds),
        "numbers": [_number(number) for number in outcome.numbers],
        "seed": seed,
        "small": small,
        "seconds": round(outcome.seconds, 2),
        "torch": torch.__version__,
    }


def _number(number: Number) -> dict[str, Any]:
    return {
        "what": number.what,
        "measured": _value(number.measured),
        "expected": _value(number.expected),
        "tolerance": _value(number.tolerance),
        "relation": number.relation,
        "holds": bool(number.holds),
    }


def _value(value: float) -> float | str:
    """The value; infinity and NaN, which JSON lacks, as a string."""
    return float(value) if math.isfinite(value) else str(float(value))


def _page(out: Path) -> str:
    """A self-contained page of all results in the folder, without scripts."""
    files = {name: out / f"{name}.json" for name in NAMES}
    records = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    return _PAGE.format(
        overview="\n".join(
            f'<li><a href="#{name}">{_title(name)}</a>: {_verdict(record)}</li>' for name, record in records.items()
        ),
        sections="\n".join(_section(name, record) for name, record in records.items()),
    )


def _title(name: str) -> str:
    return name.replace("_", " ")


def _verdict(record: dict[str, Any]) -> str:
    return "holds" if record["holds"] else '<b class="no">does not hold</b>'


def _section(name: str, record: dict[str, Any]) -> str:
    claim = html.escape(record["claim"])
    version = ", small version" if record["small"] else ""
    return f"""<section id="{name}"><h2>{_title(name)}</h2><p>{claim}</p>
<img src="{name}.png" alt="{claim}">
<table><tr><th>number</th><th>measured</th><th>expected</th><th></th></tr>
{"".join(map(_row, record["numbers"]))}</table>
<p class="small">seed {record["seed"]}, {record["seconds"]:.1f} s{version}</p></section>"""


def _row(record: dict[str, Any]) -> str:
    measured, expected, tolerance = (float(record[key]) for key in ("measured", "expected", "tolerance"))
    number = Number(record["what"], measured, expected, tolerance, record["relation"])
    cells = (html.escape(number.what), f"{measured:.4g}", html.escape(number.wanted), _verdict(record))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The theory of Wasserstein GANs, executed</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
img {{ max-width: 100%; }} section {{ border-top: 1px solid #ccc; margin-top: 2rem; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; padding: .2rem 1rem .2rem 0; }}
.no {{ color: #b00; }} .small {{ color: #666; font-size: 85%; }}
</style></head><body><h1>The theory of Wasserstein GANs, executed</h1>
<ul>
{overview}
</ul>
{sections}
</body></html>
"""
