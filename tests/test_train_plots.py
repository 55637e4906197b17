"""Pictures: which is drawn of what, and what stands in it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from matplotlib.figure import Figure
from PIL import Image

from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.view import plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that would be written."""
    kept: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


METRICS = {"modes_covered": 7, "modes_total": 8, "share_within_3_sigma": 0.625, "earth_movers_distance": 0.1234}


def test_points_are_beside_real_ones_over_the_critic(figures: list[Figure]) -> None:
    real = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    generated = torch.tensor([[1.0, 1.0], [2.2, 0.0], [2.4, 0.0], [0.0, -9.0]])
    plots.plot(Path("x.png"), generated, real, Decoder("vectors", ("x", "y")), nn.Linear(2, 1), METRICS)
    left, right, bar = figures[0].axes
    assert left.get_title() == "generated: 7 of 8 modes, 62% within 3 sigma, 2 outside the frame"
    assert right.get_title() == "real, held out"
    assert left.get_xlim() == right.get_ylim() == pytest.approx((-2.3, 2.3))
    assert np.array_equal(left.collections[-1].get_offsets(), generated)
    assert np.array_equal(right.collections[-1].get_offsets(), real)
    assert "critic's score" in bar.get_ylabel()


def test_points_without_a_critic_and_without_modes(figures: list[Figure]) -> None:
    points = torch.randn(5, 2)
    plots.plot_points(Path("x.png"), points, points, None, METRICS | {"modes_total": None})
    left, right = figures[0].axes
    assert left.get_title() == "generated: earth mover's distance 0.123"
    assert len(left.collections) == len(right.collections) == 1


@pytest.mark.parametrize(("columns", "panels"), [(1, 1), (3, 3), (5, 5), (20, 12)])
def test_columns_are_densities_in_the_users_units(columns: int, panels: int, figures: list[Figure]) -> None:
    names = tuple(f"column {i}" for i in range(columns))
    decoder = Decoder("vectors", names, (100.0,) * columns, (5.0,) * columns)
    samples = torch.randn(400, columns).clamp(-2, 2)
    plots.plot(Path("x.png"), samples, samples, decoder, None)
    shown = [axes for axes in figures[0].axes if axes.axison]
    assert [axes.get_xlabel() for axes in shown] == list(names[:panels])
    for axes in shown:
        low, high = axes.get_xlim()
        assert 80 < low < high < 120
        bars = axes.patches[:40]
        assert sum(bar.get_height() for bar in bars) * bars[0].get_width() == pytest.approx(1, abs=0.02)


def test_a_column_of_equal_values_has_a_frame(figures: list[Figure]) -> None:
    plots.plot_columns(Path("x.png"), np.zeros((3, 1)), np.full((3, 1), 5.0), ("x",))
    (axes,) = figures[0].axes
    assert sum(bar.get_height() > 0 for bar in axes.patches[:40]) == 1


@pytest.mark.parametrize(("estimate", "unit"), [("wasserstein", "critic's score"), ("jensen_shannon", "nats")])
@pytest.mark.parametrize("count", [1, 3])
def test_the_curve(estimate: str, unit: str, count: int, figures: list[Figure]) -> None:
    rows = [
        {"step": 10 * i, estimate: 1.0 + i, "critic_loss": 2.0 + i, "generator_loss": 3.0 + i} for i in range(count)
    ]
    plots.plot_curve(Path("x.png"), rows)
    (axes,) = figures[0].axes
    _, *lines = axes.lines
    for line, name in zip(lines, (estimate, "critic_loss", "generator_loss"), strict=True):
        assert line.get_xydata().tolist() == [[row["step"], row[name]] for row in rows]
        assert line.get_marker() == ("o" if count == 1 else "None")  # a line of one point shows nothing
    assert unit in axes.get_ylabel()


def test_images_are_a_grid_of_64(tmp_path: Path) -> None:
    images = torch.rand(70, 1, 16, 16)
    plots.plot(tmp_path / "x.png", images, images, Decoder("images"), None)
    plots.plot(tmp_path / "y.png", images[:64], images, Decoder("images"), None)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_a_picture_is_written(tmp_path: Path) -> None:
    plots.plot_curve(tmp_path / "x.png", [])
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG" and image.size == (1170, 585)


@pytest.mark.parametrize("name", ["net_$_gross_$", "$\\frac{$", "a_b^{", "収入", "<b>&amp;", "x\ty", "_", "%s{}"])
def test_a_column_of_any_name_is_drawn(name: str, tmp_path: Path) -> None:
    """As it is: the plotting library has a markup of its own."""
    samples = torch.randn(50, 3)
    decoder = Decoder("vectors", (name, "b", "c"), (0.0,) * 3, (1.0,) * 3)
    plots.plot(tmp_path / "x.png", samples, samples, decoder, None)
    assert (tmp_path / "x.png").stat().st_size > 1000
