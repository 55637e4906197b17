"""The report on a small invented result file."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ENVIRONMENT = {
    "device": "Abacus, 2 rods",
    "threads": 2,
    "capability": "BEADS",
    "float32_matmul_precision": "highest",
    "cudnn_allows_tf32": None,
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "system": "Linux x86_64",
}


def entry(suite: str, medians: dict[str, float], *, spread: float = 0.01, **case: Any) -> dict[str, Any]:
    """Medians are in milliseconds; ``spread`` is the relative distance of the quartiles."""
    seconds = {name: [1e-3 * ms * (1 + side * spread) for side in (-1, 0, 1)] for name, ms in medians.items()}
    return {"suite": suite, "case": {"device": "cpu", **case}, "rounds": 7, "seconds": seconds}


def step(name: str, variant: str, **medians: float) -> dict[str, Any]:
    return entry("critic_step", medians, name=name, variant=variant)


def growth(measure: str, value: int, ours: float, textbook: float) -> dict[str, Any]:
    counts = {"peak_bytes": {"ours": 600, "textbook": 800}, "all_reduce_bytes": {"ours": 450_000_000}}
    return entry("growth", {"ours": ours, "textbook": textbook}, measure=measure, value=value) | counts


FOUND = [
    step("toy", "eager", ours=10.0, textbook=12.0, fused=11.0)
    | {"forwards": {"ours": 10.0, "textbook": 12.0}, "peak_bytes": {"ours": 5, "textbook": 10}},
    step("toy", "jax", ours=10.0, jax=5.0),
    step("toy", "bfloat16", ours=5.0, textbook=12.0, fused=11.0),
    step("mnist", "eager", ours=10.0, textbook=48.0, fused=44.0),
    entry("gradient_penalty", {"ours": 4.0, "textbook": 6.0}, name="toy"),
    entry("curved_penalty", {"ours": 6.0, "textbook": 9.0, "forward": 1.0}, name="MLP, SiLU"),
    entry("interpolate", {"ours": 0.016, "reference": 0.03, "lerp": 0.008}, size="toy", dtype="float32"),
    entry("interpolate", {"ours": 0.2, "reference": 0.3, "lerp": 0.1}, size="image", dtype="float32") | {"bytes": 9},
    entry("clip_weights_", {"ours": 1.0, "foreach": 0.998}, size="4 x 2,000,000", dtype="float32"),
    entry("import", {"ours": 2000.0, "torch": 1000.0}),
    *(growth("width", width, 1.0 * width, 2.0 * width) for width in (32, 64, 128)),
    *(growth("batch", batch, 8.0, 4.0) for batch in (8, 16)),
    *(entry("clipped", {"ours": 1.0, "foreach": 2.0, "textbook": 3.0}, numbers=numbers) for numbers in (1000, 10_000)),
]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("report")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    write(tmp_path, FOUND)
    return tmp_path


def write(root: Path, found: list[dict[str, Any]], **environment: Any) -> None:
    findings = {"environment": ENVIRONMENT | environment, "commit": "0123456789abcdef-modified", "benchmarks": found}
    name = findings["environment"]["device"][0].lower()
    (root / "benchmarks" / "results" / f"{name}.json").write_text(json.dumps(findings))


def texts(report: ModuleType, root: Path) -> dict[str, str]:
    files = sorted((root / "benchmarks" / "results").glob("*.json"))
    found = report.texts(root, [report.Results.read(file) for file in files])
    return {file.name: text for file, text in found.items()}


def row(text: str, first: str) -> dict[str, str]:
    """Column -> cell, of the first row that begins with ``first``."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {first}"))
    ruler = next(i for i in range(at, -1, -1) if lines[i].startswith("| ---"))
    header, cells = ([cell.strip() for cell in lines[i].strip("|").split(" | ")] for i in (ruler - 1, at))
    return dict(zip(header, cells, strict=True))


def test_ratios_are_of_medians(report: ModuleType, root: Path) -> None:
    found = texts(report, root)
    text, front = found["benchmarks.md"], found["README.md"]
    toy = row(text, "toy: MLP")
    assert toy["ours, ms (quartiles)"] == "10.0 (9.90 to 10.1)"
    assert (toy["textbook"], toy["fused textbook"], toy["JAX"]) == ("1.20", "1.10", "0.50")
    assert toy["bfloat16: textbook in float32"] == "2.40"
    assert (toy["forwards, ours / textbook"], toy["peak memory, of textbook's (less is better)"]) == (
        "10.0 / 12.0",
        "0.50",
    )
    assert row(text, "geometric mean")["textbook"] == "2.40"  # of 1.2 and 4.8
    assert row(text, "toy |")["times as fast as textbook"] == "1.50"
    curved = row(text, "MLP, SiLU")
    assert (curved["times as fast as textbook"], curved["time in forwards"]) == ("1.50", "6.00")
    assert "forward" not in text.partition("### Where ours is slower, or")[2]  # which is a unit, not a rival
    assert not any("compile" in column or "graph" in column for column in toy)  # nothing was found of them
    assert front.startswith("before\n<!-- results -->\n") and front.endswith("\n<!-- /results -->\nafter\n")
    update = row(front, "critic update with WGAN-GP")
    assert update["times as fast as the usual code"] == "1.20 to 4.80"
    assert "Abacus, 2 rods, 2 threads" in update and "normalised" in front
    assert len([line for line in front.splitlines() if line.startswith("|")]) == 5  # the training was not measured
    assert "No GPU has been measured yet." in front
    assert "2 threads" in text and "commit 0123456789ab with changes" in text


def test_every_loss_is_shown_and_none_without_a_reason_is_hidden(report: ModuleType, root: Path) -> None:
    found = texts(report, root)
    _, _, text = found["benchmarks.md"].partition("### Where ours is slower, or")
    rows = [cells[1:5] for cells in map(columns, text.splitlines()) if len(cells) == 6]
    slower = {(suite, baseline): [cases, why] for suite, baseline, cases, why in reversed(rows)}
    assert slower["interpolate", "lerp"][0] == "toy, float32 0.50"
    assert "checks its arguments" in slower["interpolate", "lerp"][1]
    assert ["interpolate", "lerp", "image, float32 0.50", "not explained yet"] in rows  # 100 us are no checks
    assert slower["critic_step", "jax"] == ["toy, jax 0.50", "not explained yet"]
    assert slower["growth", "textbook"] == ["batch 8 0.50; batch 16 0.50", "not explained yet"]
    assert slower["clip_weights_", "foreach"][0] == "4 x 2,000,000, float32 ~0.998"  # not 1.00; the quartiles overlap
    assert slower["import", "torch"][0] == "0.50"
    short = row(found["benchmarks.md"].partition("in short")[2], "growth")
    assert (short["cases"], short["times as fast, at worst"]) == ("2 of 5", "0.50")
    assert "7 of " in text and sum(len(cases.split("; ")) for _, _, cases, _ in rows) == 7 + 2  # header, ruler


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def test_a_loss_of_memory_is_one_too(report: ModuleType, root: Path) -> None:
    write(root, [FOUND[4] | {"peak_bytes": {"ours": 20, "textbook": 10}}])
    assert (
        row(texts(report, root)["benchmarks.md"].partition("in short")[2], "gradient_penalty")["against"]
        == "textbook, peak memory"
    )


def test_contradictions_are_told(report: ModuleType, root: Path) -> None:
    """One critic step cannot take longer than an iteration with five, nor the same textbook once 12 ms and once 30."""
    assert "speed changed" not in texts(report, root)["benchmarks.md"]
    write(root, [FOUND[0], entry("training", {"ours": 20.0, "textbook": 30.0}, name="toy")])
    assert "speed changed" in texts(report, root)["benchmarks.md"]
    write(root, [FOUND[0], step("toy", "compile", ours=5.0, textbook=30.0)])
    assert "textbook of toy took 12.0 to 30.0 ms" in texts(report, root)["benchmarks.md"]
    write(root, [growth("batch", 128, 5.0, 10.0), growth("width", 256, 5.0, 14.0)])
    assert "textbook of the growth's middle took 10.0 to 14.0 ms" in texts(report, root)["benchmarks.md"]


def test_a_gpu_has_its_own_heading(report: ModuleType, root: Path) -> None:
    on_gpu = step("toy", "graph", ours=1.0, textbook=3.0, functional=2.0)
    on_gpu["case"]["device"] = "cuda"
    write(root, [on_gpu], device="GPU 9000", cudnn_allows_tf32=True)
    found = texts(report, root)
    text = found["benchmarks.md"]
    assert "## Abacus, 2 rods" in text and "No GPU" not in found["README.md"]
    eager = step("toy", "eager", ours=2.0, textbook=3.0, joint=1.8)
    eager["case"]["device"] = "cuda"
    write(root, [on_gpu, eager], device="GPU 9000", cudnn_allows_tf32=True)
    told = "GPU 9000, 1 critic: an eager update is 0.90 to 0.90 times as fast as the strongest eager code."
    assert told in texts(report, root)["README.md"].splitlines()  # not against the eager textbook, the weaker rival
    _, _, gpu = text.partition("## GPU 9000")
    assert row(gpu, "toy")["graph: functional"] == "2.00" and "may take TF32" in gpu


def test_what_a_gpu_report_did_not_finish_is_told(report: ModuleType, root: Path) -> None:
    found = {"toy": ("passed", {}), "nccl": ("failed", {}), "tests": ("cut short", {"test_a": "message"})}
    steps = {name: {"outcome": outcome, "failures": failures} for name, (outcome, failures) in found.items()}
    results = report.Results(ENVIRONMENT, "0123", FOUND, steps)
    assert "did not pass: nccl (failed), tests (cut short, 1 failed)." in report.environment(results)


def test_without_results(report: ModuleType, root: Path) -> None:
    (root / "benchmarks" / "results" / "a.json").unlink()
    assert "Nothing has been measured yet." in texts(report, root)["README.md"]


def test_what_is_written_is_read(report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.RESULTS", tmp_path / "results")
    found = report.Results(ENVIRONMENT, "0123", FOUND, {"build": {"outcome": "passed"}})
    file = found.write()
    assert file == tmp_path / "results" / "abacus-2-rods.json"
    assert report.Results.read(file) == found


def test_efficiency_on_many_gpus(report: ModuleType, root: Path) -> None:
    """450 MB: two GPUs take 1 ms and two latencies of 2 us for them."""
    text = texts(report, root)["scaling.md"]
    assert report.scaling.all_reduce_seconds(450_000_000, 2) == pytest.approx(1.004e-3)
    assert report.scaling.all_reduce_seconds(450_000_000, 1) == 0
    _, _, computed = text.partition("Computed, not measured")
    assert row(computed, "2 ")["width 128: all-reduce, ms"] == "1.004"
    assert row(computed, "2 ")["width 128: efficiency"] == "99.2 %"  # 128 / 129.004
    assert "are this CPU's" in computed
    assert row(text, "width, 32 to 128")["exponent of time"] == "1.00 to 1.00"


def test_check_passes_only_on_what_was_written(
    report: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the extra wgan_fast[train] is not installed")
    assert report.main(["--check"], root) == 1
    assert report.main([], root) == 0
    assert report.main(["--check"], root) == 0
    written = {file: file.read_bytes() for file in root.rglob("*.*") if file.is_file()}
    assert report.main([], root) == 0
    assert written == {file: file.read_bytes() for file in written}

    front, figure = root / "README.md", root / "docs" / "figures" / "growth.png"
    front.write_text(front.read_text().replace("1.20", "1.90"))
    figure.unlink()
    capsys.readouterr()
    assert report.main(["--check"], root) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("-") and "1.90" in line for line in out.splitlines())
    assert "growth.png is missing" in out and not figure.exists()

    write(root, FOUND[:-1])
    assert report.main(["--check"], root) == 1
    assert "speedup.png was drawn from other results" in capsys.readouterr().out


def test_counts_only_the_cases_that_have_the_rival(report: ModuleType, root: Path) -> None:
    short = row(texts(report, root)["benchmarks.md"].partition("in short")[2], "critic_step | jax")
    assert short["cases"] == "1 of 1"  # of four cases one was compared with JAX


def test_sides_are_pixels(report: ModuleType, root: Path) -> None:
    write(root, [entry("loading", {"ours": 1.0, "plain": 2.0}, kind="png", side=96)])
    assert row(texts(report, root)["benchmarks.md"], "png")["case"] == "png, 96 pixels wide"
