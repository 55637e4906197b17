"""The report's figures. Hatches, line styles and markers repeat what colours say."""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

from results import Entry, Results, ratio, value
from wgan_fast.train.view.colours import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

NAMES = ("speedup", "growth")
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
LINES = {  # by provider: colour, line, marker
    "ours": (COLOURS[0], "-", "o"),
    "textbook": (COLOURS[1], "--", "s"),
    "fused": (COLOURS[3], "-.", "v"),
    "foreach": (COLOURS[2], ":", "^"),
}
VARIANTS = ("eager", "bfloat16", "compile", "graph")
DIGEST = "Source"  # the PNG text chunk with the digest of the results


def draw(results: Sequence[Results], folder: Path, digest: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "hatch.linewidth": 0.6}
    for name, panel, suite, height in (
        ("speedup", _speedup, "critic_step", 3.8),
        ("growth", _growth, "growth", 5.6),
    ):
        drawn = [device for device in results if device.select(suite)]
        with matplotlib.rc_context(style):
            figure = pyplot.figure(figsize=(11, height * max(1, len(drawn))), layout="constrained")
            for device, part in zip(drawn, figure.subfigures(len(drawn) or 1, 1, squeeze=False)[:, 0], strict=False):
                panel(part, device)
            # Omits matplotlib's version, which would change the file's bytes.
            figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None, DIGEST: digest})
            pyplot.close(figure)


def drawn_from(file: Path, digest: str) -> bool:
    return file.exists() and f"{DIGEST}\0{digest}".encode() in file.read_bytes()


def _speedup(figure: Any, results: Results) -> None:
    """Bars: ratio to the textbook, by variant and critic. Thin lines: from the quotients of the quartiles. Diamonds:
    ratio to the joint textbook.
    """
    axes = figure.subplots()
    variants = [variant for variant in VARIANTS if results.select("critic_step", variant=variant)]
    critics = list(dict.fromkeys(entry["case"]["name"] for entry in results.select("critic_step")))
    width, highest = 0.8 / len(critics), 1.0
    for i, critic in enumerate(critics):
        at, heights, spread, joint = [], [], [], []
        for group, variant in enumerate(variants):
            for entry in results.select("critic_step", name=critic, variant=variant):
                (low, _, high), (their_low, _, their_high) = (entry["seconds"][who] for who in ("ours", "textbook"))
                middle = ratio(entry, "textbook")
                at.append(group + (i - (len(critics) - 1) / 2) * width)
                heights.append(middle)
                joint.append(ratio(entry, "joint") or nan)
                spread.append((max(0, middle - their_low / high), max(0, their_high / low - middle)))
        look = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)]}
        axes.bar(at, heights, 0.9 * width, label=critic, edgecolor="black", linewidth=0.6, zorder=2, **look)
        axes.errorbar(at, heights, list(zip(*spread, strict=True)), fmt="none", ecolor="black", elinewidth=1, zorder=3)
        axes.plot(
            at, joint, "D", color="white", markeredgecolor="black", zorder=4, label="against joint" if not i else None
        )
        for x, height in zip(at, heights, strict=True):
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
            axes.annotate(
                f"{height:.2f}",
                (x, height),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                bbox=box,
                zorder=5,
            )
        highest = max(highest, *heights, 1.0)
    axes.axhline(1, color="black", linestyle="--", linewidth=1, zorder=4)
    axes.set_ylim(0, 1.2 * highest)  # quartiles of a disturbed measurement may lie far outside
    axes.set_xticks(range(len(variants)), variants)
    axes.set_ylabel("times as fast as the textbook\n(eager, float32; lines: quartiles)")
    axes.set_title(f"Update of the critic, {results.device}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _growth(figure: Any, results: Results) -> None:
    grid = figure.subplots(2, 4)
    figure.suptitle(f"How cost grows, {results.device}")
    for column, (measure, axis) in enumerate(
        {"batch": "samples in a batch", "width": "units of a layer", "depth": "hidden layers"}.items()
    ):
        entries = sorted(results.select("growth", measure=measure), key=lambda entry: entry["case"]["value"])
        sizes = [entry["case"]["value"] for entry in entries]
        for row, (what, scale) in enumerate({"seconds": 1e3, "peak_bytes": 1e-6}.items()):
            axes = grid[row, column]
            _lines(axes, sizes, entries, what, scale)
            axes.set_xlabel(axis)
            if column:
                axes.sharey(grid[row, 0])
            if measure == "depth":
                axes.set_xticks(sizes, [str(size) for size in sizes])
                axes.minorticks_off()
    grid[0, 0].set_ylabel("time of an update, ms")
    grid[1, 0].set_ylabel("peak memory, MB")
    clipped = sorted(results.select("clipped"), key=lambda entry: entry["case"]["numbers"])
    if clipped:
        _lines(grid[0, 3], [entry["case"]["numbers"] for entry in clipped], clipped, "seconds", 1e3)
        grid[0, 3].set_xlabel("parameters")
        grid[0, 3].set_ylabel("time to clip, ms")
    handles = {
        name: handle
        for axes in (grid[0, 0], grid[0, 3])
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    grid[1, 3].legend(handles.values(), handles.keys(), loc="center", frameon=False)
    grid[1, 3].axis("off")
    if not clipped:
        grid[0, 3].axis("off")


def _lines(axes: Any, sizes: Sequence[int], entries: Sequence[Entry], what: str, scale: float) -> None:
    for provider, (colour, line, marker) in LINES.items():
        points = [
            (size, scale * found)
            for size, entry in zip(sizes, entries, strict=True)
            if (found := value(entry, provider, what)) is not None
        ]
        if points:
            look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 5}
            axes.loglog(*zip(*points, strict=True), label=provider, **look)
    axes.grid(alpha=0.3)
