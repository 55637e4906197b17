"""How cost grows with the batch and the critic (measured) and with the number of GPUs (computed)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from results import Entry, Results, ratio, value
from tables import compared, comparisons, label, quartiles, significant, table, times

MEASURES = ("batch", "width", "depth")
HARDLY = 1.05  # a smaller ratio is hardly a gain

GPUS = (1, 2, 4, 8, 16, 64, 256, 1024)
#: Assumed links: (bytes per second, seconds of latency), inside a node of NODE GPUs and between nodes.
NODE = 8
INSIDE, BETWEEN = (450e9, 2e-6), (50e9, 10e-6)

MODEL = """\
Computed, not measured. Each of N GPUs takes a step on its own batch. One ring all-reduce sums the gradients in one flat
buffer; it starts after the backward pass, and the optimizer waits for it:

    time(N) = step + 2 (N - 1) / N * bytes / bandwidth + 2 (N - 1) * latency
    efficiency(N) = step / time(N)
"""
OF_THIS_CPU = """\
**The steps are this CPU's.** A GPU's steps are shorter, so its efficiency with the same bytes is lower: for 90 % a step
must take nine times as long as the all-reduce. The all-reduce column holds for any device with such links."""


def all_reduce_seconds(size: int, gpus: int) -> float:
    """Time of a ring, as its slowest link: 2 (N - 1) / N of the bytes, in 2 (N - 1) messages."""
    bandwidth, latency = INSIDE if gpus <= NODE else BETWEEN
    return 2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - 1) * latency


def growth(results: Results) -> str:
    """The measurements on one device."""
    of_each = {measure: found for measure in MEASURES if len(found := by_size(results, measure)) > 1}
    clipped = sorted(results.select("clipped"), key=lambda entry: entry["case"]["numbers"])
    parts = []
    if of_each:
        entries = [entry for found in of_each.values() for entry in found]
        parts += [exponents(of_each), where_it_stops(results, entries), comparisons(entries)]
    if clipped:
        parts.append(clipping(clipped))
    return "\n\n".join(parts)


def by_size(results: Results, measure: str) -> list[Entry]:
    return sorted(results.select("growth", measure=measure), key=lambda entry: entry["case"]["value"])


def exponents(of_each: dict[str, list[Entry]]) -> str:
    def ends(found: Sequence[Any], text: Callable[[Any], str]) -> str:
        return f"{text(found[0])} to {text(found[-1])}"

    def slopes(entries: Sequence[Entry], what: str) -> str:
        points = [
            (math.log(entry["case"]["value"]), math.log(found))
            for entry in entries
            if (found := value(entry, "ours", what))
        ]
        slope = [(y - below) / (x - left) for (left, below), (x, y) in pairwise(points)]
        return ends(slope, "{:.2f}".format)

    rows = [
        [
            f"{measure}, {ends([entry['case']['value'] for entry in entries], '{:,}'.format)}",
            ends([1e3 * value(entry, "ours") for entry in entries], significant),
            slopes(entries, "seconds"),
            slopes(entries, "peak_bytes"),
            ends(entries, lambda entry: compared(entry, "textbook")),
            ends([1 / ratio(entry, "textbook", "peak_bytes") for entry in entries], times),
        ]
        for measure, entries in of_each.items()
    ]
    header = ["from the smallest to the largest", "ours, ms", "exponent of time", "exponent of peak memory"]
    text = (
        "A critic step of an MLP with 64 inputs (batch 128, width 256, 3 hidden layers), where one of these grows. "
        "Exponents are slopes on a log-log scale, between the two smallest and between the two largest sizes: 0 means "
        "constant cost, 1 means cost proportional to the size. Weights and operations grow with the square of the "
        "width. Unlike the ratios, exponents of time compare rows that were not interleaved."
    )
    return f"{text}\n\n" + table([*header, "times as fast as textbook", "peak memory, of textbook's"], rows)


def where_it_stops(results: Results, entries: Sequence[Entry]) -> str:
    def listed(entries: Sequence[Entry]) -> str:
        return ", ".join(f"{label(entry)} ({compared(entry, 'textbook')})" for entry in entries) or "nowhere"

    least = min(entries, key=lambda entry: value(entry, "ours"))
    most = max(entries, key=lambda entry: ratio(entry, "textbook"))
    saved = [found for entry in results.select("critic_step") if (found := ratio(entry, "textbook", "forwards"))]
    hardly = [entry for entry in entries if ratio(entry, "textbook") < HARDLY]
    small = (
        "launches of kernels. Ours are one launch of a CUDA graph, the textbook's are launched one by one from Python; "
        "the gain is their difference"
        if results.on_gpu
        else "overhead of Python and of PyTorch's dispatcher. Ours calls fewer of PyTorch's operators than the "
        "textbook and adds Python of its own, so there is little to gain"
    )
    text = (
        f"The shortest step takes {quartiles(least, 1e3)} ms ({label(least)}), which is {small}. Less than {HARDLY} "
        f"times as fast as the textbook: {listed(hardly)}. The largest gain: {listed([most])}."
    )
    if saved and not results.on_gpu:
        text += (
            " Beyond this constant part, the share of saved operations is about the same at any size; for the critics "
            f"of the main table it alone would give {times(min(saved))} to {times(max(saved))}."
        )
    return text


def clipping(entries: Sequence[Entry]) -> str:
    def ahead(entry: Entry) -> bool:
        return all(ratio(entry, name) >= 1 for name in entry["seconds"] if name != "ours")

    behind = [f"{entry['case']['numbers']:,}" for entry in entries if not ahead(entry)]
    return (
        f"Clipping {label(entries[0])} takes {quartiles(entries[0], 1e6)} us, {label(entries[-1])} "
        f"{quartiles(entries[-1], 1e3)} ms. Slower than one of PyTorch's forms: {', '.join(behind) or 'nowhere'} "
        "([table](benchmarks.md))."
    )


def many_gpus(results: Sequence[Results]) -> str:
    parts = [
        MODEL.strip("\n"),
        f"Assumed: up to {NODE} GPUs share a node, with {link(INSIDE)} between neighbours; a larger ring crosses "
        f"nodes, where its slowest link has {link(BETWEEN)}. Measured: the step, and the bytes of the gradients.",
        *(part for device in results for part in efficiency(device)),
    ]
    waiting = 2 * (GPUS[-1] - 1) * BETWEEN[1]
    parts.append(
        f"With {GPUS[-1]:,} GPUs {significant(1e3 * waiting)} ms of the all-reduce are latency, whatever its size: "
        "here a ring stops scaling. Libraries may switch to trees, whose latency grows with the logarithm of N; the "
        "model does not."
    )
    return "\n\n".join(parts)


def efficiency(results: Results) -> list[str]:
    """For the largest width and the one in the middle."""
    widths = by_size(results, "width")
    if not widths:
        return []
    header, rows, steps = ["GPUs"], [[f"{gpus:,}"] for gpus in GPUS], []
    for entry in {entry["case"]["value"]: entry for entry in (widths[-1], widths[len(widths) // 2])}.values():
        step, size = value(entry, "ours"), value(entry, "ours", "all_reduce_bytes")
        steps.append(f"{label(entry)}: {significant(1e3 * step)} ms and {significant(size / 1e6)} MB")
        header += [f"{label(entry)}: all-reduce, ms", f"{label(entry)}: efficiency"]
        for row, gpus in zip(rows, GPUS, strict=True):
            seconds = all_reduce_seconds(size, gpus)
            row += [f"{1e3 * seconds:.3f}", f"{100 * step / (step + seconds):.1f} %"]
    parts = [f"### {results.device}", f"Steps and gradients: {'; '.join(steps)}.", table(header, rows)]
    return parts if results.on_gpu else [*parts, OF_THIS_CPU]


def link(assumed: tuple[float, float]) -> str:
    bandwidth, latency = assumed
    return f"{bandwidth / 1e9:.0f} GB/s and {1e6 * latency:.0f} us"
