"""Runs experiments, and keeps what they find: a PNG and a JSON each, and a page that shows them all."""

import html
import importlib
import json
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from matplotlib import pyplot

from .claim import Finding, Number

#: In the order in which a lecture would tell them.
NAMES = (
    "transport_plans",
    "optimal_discriminator",
    "parallel_lines",
    "low_dimensional_manifolds",
    "discriminator_and_critic",
    "continuity",
    "gradient_identity",
    "mode_seeking",
    "estimate_tracks_quality",
    "mode_collapse",
    "clipping",
    "duality",
)


class Outcome(NamedTuple):
    """One experiment that has run."""

    name: str
    claim: str
    numbers: list[Number]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(number.holds for number in self.numbers)


def experiment(name: str) -> ModuleType:
    """The module of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"name: expected all or one of {', '.join(NAMES)}, got {name!r}")
    return importlib.import_module(f".{name}", __package__)


def claim_of(module: ModuleType) -> str:
    """The first paragraph of its docstring."""
    return " ".join((module.__doc__ or "").strip().partition("\n\n")[0].split())


def reproduce(names: tuple[str, ...], out: Path, seed: int = 0, *, small: bool = False) -> Iterator[Outcome]:
    """Runs one experiment after the other; each leaves ``<name>.png`` and ``<name>.json`` in the folder ``out``, and
    ``index.html`` is written anew.

    Args:
        names: of experiments, of :data:`NAMES`.
        out: the folder; it is made where it is missing.
        seed: of everything random.
        small: whether to make do with little training, as the tests do; numbers may then miss what is expected.
    """
    modules = [experiment(name) for name in names]
    out.mkdir(parents=True, exist_ok=True)
    for name, module in zip(names, modules, strict=True):
        torch.manual_seed(seed)
        start = time.perf_counter()
        finding: Finding = module.run(seed, small=small)
        outcome = Outcome(name, claim_of(module), finding.numbers, time.perf_counter() - start)
        finding.figure.savefig(out / f"{name}.png", dpi=150)
        pyplot.close(finding.figure)
        (out / f"{name}.json").write_text(json.dumps(_record(outcome, seed, small), indent=1) + "\n")
        (out / "index.html").write_text(_page(out))
        yield outcome


def _record(outcome: Outcome, seed: int, small: bool) -> dict[str, Any]:
    return {
        "claim": outcome.claim,
        "holds": outcome.holds,
        "numbers": [
            # JSON knows no infinity; as a word it can be read by everyone.
            {key: str(value) if value in (inf, -inf) else value for key, value in number._asdict().items()}
            | {"holds": number.holds}
            for number in outcome.numbers
        ],
        "seed": seed,
        "small": small,
        "seconds": round(outcome.seconds, 1),
        "torch": torch.__version__,
    }


def _page(out: Path) -> str:
    """A gallery of what is in the folder, without scripts and without anything from elsewhere."""
    records = {name: out / f"{name}.json" for name in NAMES}
    sections = (_section(name, json.loads(file.read_text())) for name, file in records.items() if file.exists())
    return _PAGE.format(sections="\n".join(sections))


def _section(name: str, record: dict[str, Any]) -> str:
    claim = html.escape(record["claim"])
    version = ", small version" if record["small"] else ""
    return f"""<section id="{name}"><h2>{name.replace("_", " ")}</h2><p>{claim}</p>
<img src="{name}.png" alt="{claim}">
<table><tr><th>number</th><th>measured</th><th>expected</th><th></th></tr>
{"".join(map(_row, record["numbers"]))}</table>
<p class="small">seed {record["seed"]}, {record["seconds"]} s{version}</p></section>"""


def _row(number: dict[str, Any]) -> str:
    measured, expected, tolerance = (float(number[key]) for key in ("measured", "expected", "tolerance"))
    wanted = f"{number['relation']} {expected:.4g}" + (f" ± {tolerance:.2g}" if tolerance else "")
    verdict, style = ("holds", "yes") if number["holds"] else ("does not hold", "no")
    cells = (html.escape(number["what"]), f"{measured:.4g}", html.escape(wanted), verdict)
    return f'<tr class="{style}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The theory of Wasserstein GANs, executed</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
img {{ max-width: 100%; }} section {{ border-top: 1px solid #ccc; margin-top: 2rem; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; padding: .2rem 1rem .2rem 0; }}
.no td:last-child {{ color: #b00; font-weight: bold; }} .small {{ color: #666; font-size: 85%; }}
</style></head><body><h1>The theory of Wasserstein GANs, executed</h1>
{sections}
</body></html>
"""
