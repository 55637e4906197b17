"""The figures of a run."""

import gc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.sample_files import save_samples
from wgan_fast.train.view.colours import BLUE, GREEN, RED

ESTIMATES = {
    "wasserstein": "Wasserstein estimate",
    "jensen_shannon": "Jensen-Shannon estimate",
    "relativistic_divergence": "relativistic divergence, estimate",
}
MAX_IMAGES, MAX_COLUMNS = 64, 12  # in one figure


def plot(
    path: Path,
    generated: Tensor,
    real: Tensor,
    decoder: Decoder,
    critic: Callable[[Tensor], Tensor] | None,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Writes a picture of samples: a grid of images, points in the plane, or the histogram of each column."""
    if decoder.kind == "images":
        save_samples(path, generated[:MAX_IMAGES], decoder)
    elif decoder.kind == "vectors" and generated.shape[1] == 2:
        plot_points(path, generated, real, critic, metrics)
    else:
        plot_columns(path, decoder.numbers(generated), decoder.numbers(real), decoder.columns)


@torch.no_grad()
def plot_points(
    path: Path,
    generated: Tensor,
    real: Tensor,
    critic: Callable[[Tensor], Tensor] | None,
    metrics: dict[str, Any] | None,
) -> None:
    """Writes generated samples beside real ones, both over the critic's level sets, on the same axes.

    Args:
        path: the image file.
        generated: generated samples (B, 2).
        real: real samples (B, 2).
        critic: from points (N, 2) to scores (N,) or (N, 1); None leaves the level sets out.
        metrics: as :func:`wgan_fast.train.view.metrics.evaluate` returns; they appear in the title.
    """
    limit = 1.15 * real.abs().max().item()
    outside = int((generated.abs() > limit).any(dim=1).sum())
    beyond = f", {outside} outside the frame" if outside else ""
    if critic is not None:
        ticks = torch.linspace(-limit, limit, 300)
        parameter = next(critic.parameters(), real) if isinstance(critic, nn.Module) else real
        points = torch.cartesian_prod(ticks, ticks).to(parameter.device)
        scores = torch.cat([critic(some) for some in points.split(10_000)]).reshape(300, 300).T.cpu().numpy()

    figure = Figure(figsize=(12, 6.1), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, title, points, colour in (
        (panels[0], f"generated{_summary(metrics) if metrics else ''}{beyond}", generated, RED),
        (panels[1], "real, held out", real, BLUE),
    ):
        if critic is not None:
            levels = panel.contourf(ticks, ticks, scores, levels=14, cmap="Greys", alpha=0.55)
            panel.contour(ticks, ticks, scores, levels=14, colors="white", linewidths=0.7, linestyles="solid")
        panel.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=6, color=colour, linewidths=0, zorder=3)
        panel.set_title(title, fontsize=14)
        panel.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    if critic is not None:
        figure.colorbar(levels, ax=panels, shrink=0.85, pad=0.01, label="critic's score (higher: more real)")
    _save(figure, path)


def plot_columns(path: Path, generated: NDArray[Any], real: NDArray[Any], columns: Sequence[str]) -> None:
    """Writes a histogram of each of the first 12 columns, generated samples over real ones.

    Args:
        path: the image file.
        generated: generated samples (B, D), in the user's units.
        real: real samples (B, D), in the user's units.
        columns: names of the D columns.
    """
    shown = min(len(columns), MAX_COLUMNS)
    across = min(shown, 4)
    figure = Figure(figsize=(3.6 * across, 3 * -(-shown // across)), layout="constrained")
    panels = figure.subplots(-(-shown // across), across, squeeze=False).flat
    for i, panel in enumerate(panels):
        if i >= shown:
            panel.axis("off")
            continue
        present = real[:, i][~np.isnan(real[:, i])]
        low, high = np.quantile(present if len(present) else np.zeros(1), (0.001, 0.999)).tolist()
        if low == high:  # few held-out samples, or nearly all equal
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 41)
        for values, label, style in (
            (real[:, i], "real, held out", {"color": BLUE, "alpha": 0.4}),
            (generated[:, i], "generated", {"color": RED, "histtype": "step"}),
        ):
            there = values[~np.isnan(values)]
            share = np.full(len(there), 40 / (len(values) * (high - low)))  # counts samples outside the frame, too
            panel.hist(there, edges, weights=share, label=label, **style)
        panel.set(ylabel="density" if i % across == 0 else None)
        panel.set_xlabel(columns[i], parse_math=False, usetex=False)  # the user's text, whatever it holds
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    _save(figure, path)


def _summary(metrics: dict[str, Any]) -> str:
    if metrics["modes_total"] is None:
        return f": earth mover's distance {metrics['earth_movers_distance']:.3f}"
    return (
        f": {metrics['modes_covered']} of {metrics['modes_total']} modes, "
        f"{metrics['share_within_3_sigma']:.0%} within 3 sigma"
    )


def plot_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Plots the estimate of the distance and the losses against generator steps.

    Args:
        path: the image file.
        rows: rows of the history, each with ``step``, one of ``ESTIMATES``, ``critic_loss`` and ``generator_loss``.
    """
    steps = [row["step"] for row in rows]
    marker = "o" if len(rows) == 1 else None
    estimate = next((name for name in ESTIMATES if rows and name in rows[0]), "wasserstein")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="grey", linewidth=0.8)
    for name, label, colour, line in (
        (estimate, ESTIMATES[estimate], BLUE, "-"),
        ("critic_loss", "critic loss", RED, "--"),
        ("generator_loss", "generator loss", GREEN, ":"),
    ):
        axes.plot(steps, [row[name] for row in rows], color=colour, linestyle=line, marker=marker, label=label)
    unit = "critic's score" if estimate == "wasserstein" else "nats"
    axes.set(xlabel="generator steps", ylabel=f"estimate and losses ({unit})")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a script that it lacks gives empty boxes
        figure.savefig(path, dpi=130)
    figure.clear()
    gc.collect()  # figures hold megabytes in reference cycles
