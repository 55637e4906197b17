"""The figures of a run. Colours are Okabe and Ito's, which colour-blind readers tell apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

BLUE = "#0072B2"
VERMILION = "#D55E00"


@torch.no_grad()
def plot_samples(
    path: Path, generated: Tensor, real: Tensor, critic: Callable[[Tensor], Tensor], metrics: dict[str, Any]
) -> None:
    """Writes generated samples beside real ones, both over the critic's level sets, on the same axes.

    Args:
        path: of the image.
        generated: of shape (B, 2).
        real: of shape (B, 2).
        critic: from points (N, 2) to scores (N,).
        metrics: as :func:`wgan_fast.train.metrics.evaluate` returns; what applies goes into the title.
    """
    limit = 1.15 * real.abs().max().item()
    outside = int((generated.abs() > limit).any(dim=1).sum())
    beyond = f", {outside} outside the frame" if outside else ""
    ticks = torch.linspace(-limit, limit, 300, device=real.device)
    scores = critic(torch.cartesian_prod(ticks, ticks)).reshape(300, 300).T.cpu().numpy()
    line = ticks.cpu().numpy()

    figure = Figure(figsize=(12, 6.1), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, title, points, colour in (
        (panels[0], f"generated{_summary(metrics)}{beyond}", generated.cpu(), VERMILION),
        (panels[1], "real, held out", real.cpu(), BLUE),
    ):
        levels = panel.contourf(line, line, scores, levels=14, cmap="Greys", alpha=0.55)
        panel.contour(line, line, scores, levels=14, colors="white", linewidths=0.7, linestyles="solid")
        panel.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=6, color=colour, linewidths=0, zorder=3)
        panel.set_title(title, fontsize=14)
        panel.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    figure.colorbar(levels, ax=panels, shrink=0.85, pad=0.01, label="critic's score (higher: more real)")
    figure.savefig(path, dpi=130)


def _summary(metrics: dict[str, Any]) -> str:
    if metrics["modes_total"] is None:
        return f": earth mover's distance {metrics['earth_movers_distance']:.3f}"
    return (
        f": {metrics['modes_covered']} of {metrics['modes_total']} modes, "
        f"{metrics['share_within_3_sigma']:.0%} within 3 sigma"
    )


def plot_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes the Wasserstein estimate and the critic's loss against generator steps.

    Args:
        path: of the image.
        rows: of the history, each with ``step``, ``wasserstein`` and ``critic_loss``.
    """
    steps = [row["step"] for row in rows]
    marker = "o" if len(rows) == 1 else None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.plot(steps, [row["wasserstein"] for row in rows], color=BLUE, marker=marker, label="Wasserstein estimate")
    axes.plot(
        steps, [row["critic_loss"] for row in rows], color=VERMILION, linestyle="--", marker=marker, label="critic loss"
    )
    axes.set(xlabel="generator steps", ylabel="difference of critic scores")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
