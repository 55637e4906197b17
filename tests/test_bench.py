"""Timing in turn, and the table that `wgan-fast bench` prints."""

import pytest
import torch

from wgan_fast import bench

CPU = torch.device("cpu")


def test_functions_take_turns() -> None:
    calls: list[str] = []
    times = bench.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, CPU, seconds=1e-9)
    assert calls == ["a", "b"] * (3 + 1 + 7)  # warm-up, the round that decides how many fit, rounds
    assert {name: len(each) for name, each in times.items()} == {"a": 7, "b": 7}
    assert all(time >= 0 for each in times.values() for time in each)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 7), (6.9, 7), (20.5, 10), (1e6, 60)])
def test_rounds_that_fit(seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([10.0, 12.0])
    monkeypatch.setattr(bench, "clock", lambda device: lambda: next(readings))
    assert bench.rounds_within({}, CPU, seconds) == rounds


def test_quartiles() -> None:
    assert bench.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("ours", "textbook", "ratio"),
    [([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], "2.00"), ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], "~1.50")],
)
def test_quartiles_that_overlap_are_marked(
    ours: list[float], textbook: list[float], ratio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_COMPARISONS", {"name": lambda device: {}})
    monkeypatch.setattr(bench, "interleaved", lambda *_: {"ours": ours, "textbook": textbook})
    (row,) = bench.rows(CPU, 1.0)
    assert row.split() == ["name", f"{ours[1] * 1e3:.3f}", "ms", f"{textbook[1] * 1e3:.3f}", "ms", ratio]
    assert len(row) == len(bench.title(CPU).splitlines()[-1])


@pytest.mark.parametrize("name", bench._COMPARISONS)
def test_both_sides_of_a_comparison_run(name: str) -> None:
    functions = bench._COMPARISONS[name](CPU)
    assert functions.keys() == {"ours", "textbook"}
    for function in functions.values():
        function()


def test_interpolations_compared_are_the_same() -> None:
    functions = bench._COMPARISONS["interpolate, 64 x 3 x 64 x 64"](CPU)
    torch.testing.assert_close(functions["ours"](), functions["textbook"]())


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "rows", lambda device, seconds: iter([f"{device} {seconds}"]))
    assert bench.main(["--device", "cpu", "--seconds", "0.5"]) == 0
    assert capsys.readouterr().out == f"{bench.title(CPU)}\ncpu 0.5\n"


@pytest.mark.parametrize("seconds", ["0", "nan", "-1", "1e7"])
def test_seconds_out_of_range(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main([f"--seconds={seconds}"])
    assert "--seconds: expected a number of at least 0.1" in capsys.readouterr().err
