"""Numbers, comparisons and tables of the report, in Markdown."""

import math
from collections.abc import Iterable, Sequence

from results import LIMIT, UNIT, Entry, apart, baselines, ratio, value


def geometric_mean(numbers: Iterable[float | None]) -> float | None:
    logarithms = [math.log(number) for number in numbers if number]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def times(number: float | None) -> str:
    """A ratio; a value below 1 is never rounded up to 1."""
    if number is None:
        return ""
    text = f"{number:.2f}"
    return f"{math.floor(1000 * number) / 1000:.3f}" if number < 1 and float(text) == 1 else text


def compared(entry: Entry, baseline: str, what: str = "seconds") -> str:
    """The ratio, with a ~ before it if the quartiles of the two times overlap."""
    found = ratio(entry, baseline, what)
    return "~" * (found is not None and what == "seconds" and not apart(entry, baseline)) + times(found)


def significant(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:#.3g}".rstrip(".")


def quartiles(entry: Entry, scale: float, provider: str = "ours") -> str:
    first, median, third = (significant(seconds * scale) for seconds in entry["seconds"][provider])
    return f"{median} ({first} to {third})"


def label(entry: Entry) -> str:
    """The case's parameters in words, without the device."""
    case = entry["case"]
    if "measure" in case:
        return f"{case['measure']} {case['value']:,}"
    words = (item for name, item in case.items() if name != "device")
    return ", ".join(f"{item:,} numbers" if isinstance(item, int) else str(item) for item in words)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "---:") -> str:
    """A Markdown table without its empty columns."""
    rows = list(rows)
    kept = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    ruler = ["---", *[alignment] * (len(kept) - 1)]
    lines = [[header[i] for i in kept], ruler, *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share_of_limit(entry: Entry) -> str:
    """The time of the products alone, in percent of the whole time."""
    found = ratio(entry, LIMIT)
    return f"{100 * found:.0f}" if found else ""


def comparisons(entries: Sequence[Entry]) -> str:
    """A table with a row for each case, for any suite."""
    if not entries:
        return ""
    in_ms = (geometric_mean(value(entry, "ours") for entry in entries) or 0) >= 1e-3
    scale, unit = (1e3, "ms") if in_ms else (1e6, "us")
    others = baselines(entries)
    header = ["case", f"ours, {unit}", *(f"times as fast as {name}" for name in others)]
    counted = "shared" if "shared" in others else "textbook"  # the baseline whose operations and memory were counted
    header += [
        "time in forwards",
        "% of its products' speed",
        "GB/s",
        "% of a copy",
        "forwards, ours",
        f"forwards, {counted}",
    ]
    header.append(f"peak memory, of {counted}'s")

    def shown(entry: Entry, what: str, provider: str) -> str:
        found = value(entry, provider, what)
        return "" if found is None else significant(found)

    rows = []
    for entry in entries:
        memory = ratio(entry, counted, "peak_bytes")
        rows.append(
            [
                label(entry) or entry["suite"],
                quartiles(entry, scale),
                *(compared(entry, name) for name in others),
                significant(1 / forwards) if (forwards := ratio(entry, UNIT)) else "",
                share_of_limit(entry),
                significant(entry["GB/s"]) if "GB/s" in entry else "",
                f"{entry['percent_of_copy']:.0f}" if "percent_of_copy" in entry else "",
                *(shown(entry, "forwards", provider) for provider in ("ours", counted)),
                times(memory and 1 / memory),
            ]
        )
    return table(header, rows)
