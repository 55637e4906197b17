"""Writes ``theory.md``: ``python -m wgan_fast.experiments.document runs/reproduce docs``, from a folder of results.

Further folders, with results of other seeds, add a table of what holds for which seed.
"""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from . import CHAPTERS, NAMES
from .claim import PAPERS, Number
from .page import title

#: Larger figures, with thousands of points, are on the page alone.
LARGEST = 120_000

_HEAD = """# The theory, executed

<!-- Written by `python -m wgan_fast.experiments.document`; edit the modules' STORY and docstrings instead. -->

Each claim is tested by one short script in `wgan_fast/experiments/`, from public names of the library. It has numbers
that the theory predicts, numbers that were measured, and a statement of what would refute it. `wgan-fast reproduce all`
runs them and writes a page with all figures and three interactive widgets; `tests/test_reproduce.py` plants errors (JS
doubled, KL swapped, a squared cost, W times 0.9, random potentials, ...) and checks that the right claim fails.
"""


def write(results: Path, docs: Path, *other_seeds: Path) -> None:
    """Writes ``theory.md`` into ``docs``, and copies the figures to its folder ``figures/theory``."""
    figures = docs / "figures" / "theory"
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir(parents=True)
    parts = [_HEAD]
    for chapter, names in CHAPTERS.items():
        parts.append(f"## {chapter}\n")
        for name in names:
            record = json.loads((results / f"{name}.json").read_text())
            shown = [(file, text) for file, text in record["figures"] if (results / file).stat().st_size <= LARGEST]
            for file, _ in shown:
                shutil.copyfile(results / file, figures / file)
            parts.append(_section(name, record, shown))
    if other_seeds:
        parts.append(_by_seed([results, *other_seeds]))
    (docs / "theory.md").write_text("\n".join(parts))


def _by_seed(folders: list[Path]) -> str:
    """What holds in each folder, by its seed; numbers that do not hold are named."""
    records: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in NAMES}
    for name, folder in itertools.product(NAMES, folders):
        if (folder / f"{name}.json").exists():
            record = json.loads((folder / f"{name}.json").read_text())
            records[name][record["seed"]] = record
    seeds = sorted({seed for each in records.values() for seed in each})
    rows = [f"| claim | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|---" * (len(seeds) + 1) + "|"]
    for name, each in records.items():
        cells = [_held(each[seed]) if seed in each else "" for seed in seeds]
        rows.append(f"| {title(name)} | {' | '.join(cells)} |")
    lines = "\n".join(rows)
    return f"""## Seeds

A claim holds where each of its numbers does. An empty cell was not run.

{lines}
"""


def _held(record: dict[str, Any]) -> str:
    wrong = "; ".join(number["what"] for number in record["numbers"] if not number["holds"])
    return f"**no**: {_markdown(wrong)}" if wrong else "holds"


def _section(name: str, record: dict[str, Any], shown: list[tuple[str, str]]) -> str:
    words = title(name)
    formulas = "\n".join(f"```math\n{formula}\n```" for _, formula in record["formulas"])
    images = "\n".join(f'<img src="figures/theory/{file}" width="360" alt="{_plain(text)}">' for file, text in shown)
    rows = "\n".join(map(_row, record["numbers"]))
    caveats = f"\n**What it does not show.** {_markdown(record['caveats'])}\n" if record["caveats"] else ""
    papers = ", ".join(f"[{PAPERS[key][0]}]({PAPERS[key][1]})" for key in record["papers"])
    return f"""### {words[0].upper()}{words[1:]}

**{record["plain"]}**

{formulas}

{_markdown(record["claim"])}

{images}

{_markdown(record["how"], before="**How it is tested.** ")}

**What would refute it.** {_markdown(record["refuted_by"])}
{caveats}
<details><summary>{len(record["numbers"])} numbers, seed {record["seed"]}</summary>

| number | measured | expected |
|---|---|---|
{rows}

</details>

Papers: {papers}. Code: [`{name}.py`](../wgan_fast/experiments/{name}.py)
"""


def _row(record: dict[str, Any]) -> str:
    measured, expected, tolerance = (float(record[key]) for key in ("measured", "expected", "tolerance"))
    number = Number(record["what"], measured, expected, tolerance, record["relation"])
    mark = " (a check of the code)" if record["of_code"] else ""
    wrong = "" if record["holds"] else " **does not hold**"
    return f"| {number.what.replace('|', '&#124;')}{mark} | {measured:.4g}{wrong} | {number.wanted} |"


def _markdown(text: str, before: str = "") -> str:
    """Plain text, in which no character has a meaning; ``before`` introduces what is not empty."""
    return before + re.sub(r"([\\*_`<$|\[\]])", r"\\\1", text) if text else ""


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
