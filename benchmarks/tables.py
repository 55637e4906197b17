"""Result files read again, and what the report takes from them: comparisons, ratios, Markdown."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
#: What is compared, by the key in a result; less is better for all of them.
COMPARED = {"seconds": "time", "peak_bytes": "peak memory", "forwards": "operations"}


@dataclass(frozen=True)
class Results:
    """What was found on one device."""

    environment: dict[str, Any]
    commit: str | None
    steps: dict[str, Any]
    entries: list[Entry]

    @classmethod
    def read(cls, file: Path) -> "Results":
        found = json.loads(file.read_text())
        entries = [entry for entry in found["benchmarks"] if "seconds" in entry]
        return cls(found["environment"], found["commit"], found.get("steps", {}), entries)

    def select(self, suite: str, **case: Any) -> list[Entry]:
        return [entry for entry in self.entries if entry["suite"] == suite and case.items() <= entry["case"].items()]

    @property
    def device(self) -> str:
        return self.environment["device"]

    @property
    def on_gpu(self) -> bool:
        return any(entry["case"].get("device") == "cuda" for entry in self.entries)


def value(entry: Entry, provider: str, what: str = "seconds") -> float | None:
    """The median time of a provider, or what was counted for it."""
    found = entry.get(what, {}).get(provider)
    return found[1] if what == "seconds" and found else found


def ratio(entry: Entry, baseline: str, what: str = "seconds") -> float | None:
    """How many times what ours takes the baseline takes."""
    theirs, ours = value(entry, baseline, what), value(entry, "ours", what)
    return theirs / ours if theirs and ours else None


def apart(entry: Entry, baseline: str) -> bool:
    """Whether the middle halves of the times have nothing in common."""
    (low, _, high), (other_low, _, other_high) = entry["seconds"]["ours"], entry["seconds"][baseline]
    return high < other_low or other_high < low


def baselines(entries: Iterable[Entry], what: str = "seconds") -> list[str]:
    return [name for name in dict.fromkeys(name for entry in entries for name in entry.get(what, {})) if name != "ours"]


def geometric_mean(numbers: Iterable[float | None]) -> float | None:
    logarithms = [math.log(number) for number in numbers if number]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def times(number: float | None) -> str:
    """A ratio; what is below 1 is not rounded up to it."""
    if number is None:
        return ""
    text = f"{number:.2f}"
    return f"{math.floor(1000 * number) / 1000:.3f}" if number < 1 and float(text) == 1 else text


def compared(entry: Entry, baseline: str, what: str = "seconds") -> str:
    """The ratio; behind a ~ where the quartiles of two times overlap, so that this run cannot tell them apart."""
    found = ratio(entry, baseline, what)
    return "~" * (found is not None and what == "seconds" and not apart(entry, baseline)) + times(found)


def significant(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:#.3g}".rstrip(".")


def quartiles(entry: Entry, scale: float, provider: str = "ours") -> str:
    first, median, third = (significant(seconds * scale) for seconds in entry["seconds"][provider])
    return f"{median} ({first} to {third})"


def label(entry: Entry) -> str:
    """A case in words, without its device."""
    case = entry["case"]
    if "measure" in case:
        return f"{case['measure']} {case['value']:,}"
    words = (item for name, item in case.items() if name != "device")
    return ", ".join(f"{item:,} numbers" if isinstance(item, int) else str(item) for item in words)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "---:") -> str:
    """In Markdown, without the columns that hold nothing."""
    rows = list(rows)
    kept = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    ruler = ["---", *[alignment] * (len(kept) - 1)]
    lines = [[header[i] for i in kept], ruler, *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparisons(entries: Sequence[Entry]) -> str:
    """A row for each case, whatever the suite."""
    if not entries:
        return ""
    in_ms = (geometric_mean(value(entry, "ours") for entry in entries) or 0) >= 1e-3
    scale, unit = (1e3, "ms") if in_ms else (1e6, "us")
    others = baselines(entries)
    header = ["case", f"ours, {unit}", *(f"times as fast as {name}" for name in others)]
    header += ["GB/s", "% of a copy", "forwards, ours", "forwards, textbook", "peak memory, of textbook's"]

    def shown(entry: Entry, what: str, provider: str) -> str:
        found = value(entry, provider, what)
        return "" if found is None else significant(found)

    rows = []
    for entry in entries:
        memory = ratio(entry, "textbook", "peak_bytes")
        rows.append(
            [
                label(entry) or entry["suite"],
                quartiles(entry, scale),
                *(compared(entry, name) for name in others),
                significant(entry["GB/s"]) if "GB/s" in entry else "",
                f"{entry['percent_of_copy']:.0f}" if "percent_of_copy" in entry else "",
                *(shown(entry, "forwards", provider) for provider in ("ours", "textbook")),
                times(memory and 1 / memory),
            ]
        )
    return table(header, rows)
