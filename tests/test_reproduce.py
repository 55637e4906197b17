"""`wgan-fast reproduce`: the command, the folder that it writes, and its error messages."""

import errno
import json
import math
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

pytest.importorskip("ot", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("matplotlib", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("typer", reason="the extra wgan_fast[train] is not installed")

from typer.testing import CliRunner

from wgan_fast import distances, experiments, gradient_penalty
from wgan_fast.cli import app
from wgan_fast.experiments import (
    NAMES,
    document,
    duality,
    estimate_tracks_quality,
    integral_probability_metrics,
    manifolds,
    reproduce,
)
from wgan_fast.experiments.claim import PAPERS, Finding, Number, Story, axes

FORMULA = "x < y > z"
SPECIAL = '<script>alert("a & b")</script>'


def run_cli(*arguments: object):
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def put_experiment(monkeypatch: pytest.MonkeyPatch, name: str, numbers: object, claim: str = "It is so.") -> None:
    """Replaces an experiment by one that draws a line and returns `numbers(seed)`."""
    module = ModuleType(f"wgan_fast.experiments.{name}", claim + "\n\nWhat *follows* tells how.\n")

    def run(seed: int, *, small: bool = False) -> Finding:
        figures, (panel,) = axes()
        panel.set_title("a line")
        panel.plot([0, 1])
        return Finding(figures, numbers(seed))

    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)


def strict_json(path: Path):
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "holds", "wanted"),
    [
        (Number("n", 0.51, 0.5, 0.02), True, "0.5 ± 0.02"),
        (Number("n", 0.53, 0.5, 0.02), False, "0.5 ± 0.02"),
        (Number("n", 0.5, 0.5), True, "0.5"),
        (Number("n", 0.98, 1.0, 0.05, ">="), True, ">= 1 - 0.05"),
        (Number("n", 0.94, 1.0, 0.05, ">="), False, ">= 1 - 0.05"),
        (Number("n", 1.04, 1.0, 0.05, "<="), True, "<= 1 + 0.05"),
        (Number("n", 1.06, 1.0, 0.05, "<="), False, "<= 1 + 0.05"),
        (Number("n", math.inf, math.inf), True, "inf"),
        (Number("n", -math.inf, math.inf), False, "inf"),
        (Number("n", 1e300, math.inf), False, "inf"),
        (Number("n", math.nan, 0.0, 1.0), False, "0 ± 1"),
        (Number("n", math.nan, 0.0, 1.0, ">="), False, ">= 0 - 1"),
        (Number("n", math.nan, math.inf), False, "inf"),
    ],
)
def test_a_number_holds_within_its_tolerance(number: Number, holds: bool, wanted: str) -> None:
    assert number.holds is holds
    assert number.wanted == wanted


# What is wrong before anything runs ---------------------------------------------------------------


def test_an_unknown_name_lists_the_names(tmp_path: Path) -> None:
    result = run_cli("perpetual_motion", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: name:") and "'perpetual_motion'" in result.stderr
    assert all(name in result.stderr for name in NAMES)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="^name: expected one of transport_plans, .*'perpetual_motion'"):
        reproduce.prepare(["perpetual_motion"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_lists_the_names() -> None:
    result = run_cli("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in (*NAMES, "--out", "--seed", "--small"))


def test_every_name_is_an_experiment_that_states_its_claim() -> None:
    for name in NAMES:
        module = reproduce.experiment(name)
        claim = reproduce.claim_of(module)
        assert len(claim) > 80 and "Source:" in claim, name
        assert callable(module.run)
        story = reproduce.story_of(module)
        assert story.plain.endswith(".") and story.formulas and story.refuted_by and story.papers, name
        assert set(story.papers) <= set(PAPERS), name


def test_out_must_be_a_folder_that_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: pytest.fail("it ran"))
    file = tmp_path / "file"
    file.write_text("precious")
    for out, reason in ((file, "is a file"), (file / "below", "cannot be created")):
        result = run_cli("continuity", "--out", out)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: --out:") and reason in result.stderr and str(out) in result.stderr
    assert file.read_text() == "precious"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
def test_out_must_be_a_folder_that_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: pytest.fail("it ran"))
    result = run_cli("continuity", "--out", "/proc/self")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --out: the folder /proc/self cannot be written to")


@pytest.mark.parametrize("missing", ["matplotlib", "ot"])
def test_a_missing_package_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("wgan_fast.experiments.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(experiments, "reproduce")
    for module in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, module, None)
    result = run_cli("all", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"reproduce needs {missing}" in result.stderr and "pip install '.[train]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_module_of_our_own_that_is_missing_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wgan_fast.experiments.continuity", None)
    result = run_cli("continuity")
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize("seed", ["-1", "x"])
def test_a_seed_is_a_number_from_zero(seed: str, tmp_path: Path) -> None:
    result = run_cli("continuity", "--seed", seed, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "--seed" in result.stderr
    assert not (tmp_path / "out").exists()


# What a run leaves and says -----------------------------------------------------------------------


def test_a_run_leaves_figure_numbers_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [Number("finite", 0.1 + 0.2, 0.3, 1e-9), Number("infinite", math.inf, math.inf)]
    put_experiment(monkeypatch, "continuity", lambda seed: numbers)
    out = tmp_path / "a" / "b"
    result = run_cli("continuity", "--out", out, "--seed", 7)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"continuity_1.svg", "continuity.json", "index.html"}
    assert "<svg" in (out / "continuity_1.svg").read_text()
    record = strict_json(out / "continuity.json")
    assert record["claim"] == "It is so." and record["holds"] is True and record["seed"] == 7
    finite, infinite = record["numbers"]
    assert finite["measured"] == 0.1 + 0.2  # not rounded
    assert infinite["measured"] == infinite["expected"] == "inf" and infinite["holds"] is True
    page = (out / "index.html").read_text()
    assert "It is so." in page and "<p>What *follows* tells how.</p>" in page
    assert 'src="continuity_1.svg" alt="a line"' in page and "does not hold" not in page
    assert "[1/1] continuity ... holds" in result.stdout and "finite: 0.3 (expected 0.3 ± 1e-09)" in result.stdout


def test_a_full_disk_leaves_the_results_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: [Number("good", 1, 1)])
    assert run_cli("continuity", "--out", tmp_path).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write_half(path: Path, text: str, *args: object, **kwargs: object) -> None:
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    assert run_cli("continuity", "--out", tmp_path, "--seed", 1).exit_code != 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys() and after["continuity.json"] == before["continuity.json"]


def test_a_number_that_does_not_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, wrong, lost = Number("good", 1, 1), Number("wrong", 2, 1, 0.5), Number("lost", math.nan, 1)
    put_experiment(monkeypatch, "continuity", lambda seed: [good, wrong, lost])
    result = run_cli("continuity", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == "error: not reproduced: continuity: wrong; continuity: lost\n"
    assert "continuity ... DOES NOT HOLD" in result.stdout and "wrong: 2 (expected 1 ± 0.5)  DOES" in result.stdout
    record = strict_json(tmp_path / "continuity.json")
    assert record["holds"] is False
    assert [number["holds"] for number in record["numbers"]] == [True, False, False]
    assert record["numbers"][2]["measured"] == "nan"
    assert (tmp_path / "index.html").read_text().count(
        "does not hold"
    ) == 4  # in the overview, the heading, and two rows


def test_all_runs_every_experiment_even_after_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        measured = 2.0 if name == NAMES[0] else 1.0
        put_experiment(monkeypatch, name, lambda seed, measured=measured: [Number("one", measured, 1)])
    result = run_cli("--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"error: not reproduced: {NAMES[0]}: one\n"
    page = (tmp_path / "index.html").read_text()
    places = [page.index(f'<section id="{name}" ') for name in NAMES]
    assert places == sorted(places)
    assert f"[{len(NAMES)}/{len(NAMES)}] {NAMES[-1]} ... holds" in result.stdout


def test_the_page_keeps_what_other_runs_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("continuity", "duality"):
        put_experiment(monkeypatch, name, lambda seed: [Number("one", 1, 1)])
        assert run_cli(name, "--out", tmp_path).exit_code == 0
    page = (tmp_path / "index.html").read_text()
    assert 'id="continuity"' in page and 'id="duality"' in page


def test_the_page_shows_records_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: [Number("one", 1, 1)])
    assert run_cli("continuity", "--out", tmp_path).exit_code == 0
    record = strict_json(tmp_path / "continuity.json")
    del record["how"]  # which that version did not write
    (tmp_path / "continuity.json").write_text(json.dumps(record))
    put_experiment(monkeypatch, "duality", lambda seed: [Number("one", 1, 1)])
    assert run_cli("duality", "--out", tmp_path).exit_code == 0
    assert 'id="continuity"' in (tmp_path / "index.html").read_text()


def test_the_page_escapes_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: [Number(SPECIAL, 1, 1, 0, "<=")], claim=SPECIAL)
    words = Story(SPECIAL, (FORMULA,), SPECIAL, (), SPECIAL)
    monkeypatch.setattr(sys.modules["wgan_fast.experiments.continuity"], "STORY", words, raising=False)
    assert run_cli("continuity", "--out", tmp_path).exit_code == 0

    tags, attributes, text = [], [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)
            attributes.extend(value for _, value in attrs)

        def handle_data(self, data):
            text.append(data)

    Reader().feed((tmp_path / "index.html").read_text())
    assert "script" not in tags
    assert FORMULA in attributes  # the alternative text of the formula
    assert "".join(text).count(SPECIAL) == 5  # the claim, the plain sentence, both notes and the number


def test_stopping_keeps_what_was_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seed: int):
        raise KeyboardInterrupt

    for name in NAMES:
        put_experiment(monkeypatch, name, lambda seed: [Number("one", 1, 1)])
    put_experiment(monkeypatch, NAMES[1], interrupt)
    result = run_cli("--out", tmp_path)
    assert result.exit_code == 130
    assert "stopped" in result.stderr and str(tmp_path) in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{NAMES[0]}_1.svg", f"{NAMES[0]}.json", "index.html"}


# Seeds --------------------------------------------------------------------------------------------


def test_a_seed_decides_the_numbers_whatever_ran_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_experiment(monkeypatch, "continuity", lambda seed: [Number("drawn", torch.rand(()).item(), 0, 1)])
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()

    def measured(seed: int) -> float:
        return reproduce.run("continuity", tmp_path, seed).numbers[0].measured

    first = measured(3)
    torch.rand(5)
    assert measured(3) == first != measured(4)
    torch.random.set_rng_state(before)
    measured(3)
    assert torch.equal(torch.random.get_rng_state(), before)  # and what runs after draws what it would have drawn
    assert torch.get_num_threads() == threads


def test_two_runs_of_an_experiment_give_the_same_numbers(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        result = run_cli("low_dimensional_manifolds", "--small", "--out", tmp_path / folder)
        assert result.exit_code in (0, 1), result.output
    one, two = (strict_json(tmp_path / folder / "low_dimensional_manifolds.json") for folder in ("one", "two"))
    assert one["numbers"] == two["numbers"] and one["small"] is True


def test_the_document_tells_every_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        put_experiment(monkeypatch, name, lambda seed: [Number("a | b", 2, 1)])
        story = Story("Plain.", ("x",), "No.", ("gan",))
        monkeypatch.setattr(sys.modules[f"wgan_fast.experiments.{name}"], "STORY", story, raising=False)
    run_cli("--out", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    document.write(tmp_path / "results", tmp_path / "docs")
    text = (tmp_path / "docs" / "theory.md").read_text()
    assert text.count("**Plain.**") == len(NAMES) == text.count("| a &#124; b | 2 **does not hold** | 1 |")
    for name in NAMES:
        assert f"(../wgan_fast/experiments/{name}.py)" in text
    assert text.count("**How it is tested.** What \\*follows\\* tells how.") == len(NAMES)
    for name in NAMES:
        assert f"figures/theory/{name}_1.svg" in text and (tmp_path / "docs/figures/theory" / f"{name}_1.svg").exists()


def test_the_document_tells_what_holds_for_which_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        put_experiment(monkeypatch, name, lambda seed: [Number("a", seed, 0), Number("b", 0, 0)])
    run_cli("--out", tmp_path / "zero")
    run_cli(NAMES[1], "--out", tmp_path / "one", "--seed", 1)
    document.write(tmp_path / "zero", tmp_path, tmp_path / "one")
    text = (tmp_path / "theory.md").read_text()
    assert "| claim | seed 0 | seed 1 |" in text
    assert f"| {NAMES[0].replace('_', ' ')} | holds |  |" in text
    assert f"| {NAMES[1].replace('_', ' ')} | holds | **no**: a |" in text


# Planted errors -----------------------------------------------------------------------------------


def js_doubled(p, q, **options):
    return 2 * distances.js_divergence(p, q, **options)


def kl_swapped(p, q, **options):
    return distances.kl_divergence(q, p, **options)


def shortened(*arguments, **options):
    return 0.9 * distances.earth_movers_distance(*arguments, **options)


def shortened_on_a_line(*arguments, **options):
    return 0.9 * distances.earth_movers_distance_1d(*arguments, **options)


def squared(*arguments, **options):
    return distances.earth_movers_distance_1d(*arguments, **options | {"power": 2.0})


def plan_of_squares(cost, *masses):
    plan, _ = distances.transport_plan(cost**2, *masses)
    return distances.TransportPlan(plan, (plan * cost**2).sum())


MMD = integral_probability_metrics.mmd


def squared_mmd(p, q):
    return MMD(p, q) ** 2


def halved_variation(p, q, **options):
    return distances.total_variation(p, q, **options) / 2


def penalty_of_another_target(*arguments, **options):
    return gradient_penalty(*arguments, **options | {"target": 1.1})


def random_potentials(real, fake):
    exact = SOLVE(real, fake)
    return exact._replace(u=torch.randn_like(exact.u), v=torch.randn_like(exact.v))


def shuffled_partners(real, fake):
    exact = SOLVE(real, fake)
    return exact._replace(partners=exact.partners.roll(1))


def generator_that_climbs(scores):
    return scores.mean()


def noise_for_digits():
    return SimpleNamespace(data=torch.rand(1797, 64, generator=torch.Generator().manual_seed(0)).double().numpy() * 16)


DIMENSION = manifolds.dimension


def doubled_dimension(points):
    return 2 * DIMENSION(points)


def eps_without_the_slope(discriminators, points):
    with torch.no_grad():
        return discriminators(points.expand(8, -1, -1)).sigmoid().amax(1)


SOLVE = duality.solve
PLANTS = [
    ("alternative_gradient", "js_divergence", js_doubled, ("-log D*", "log(1 - D*)")),
    ("alternative_gradient", "kl_divergence", kl_swapped, ("-log D*",)),
    ("optimal_discriminator", "js_divergence", js_doubled, ("12 outcomes: its V",)),
    ("maximum_likelihood", "js_divergence", js_doubled, ("JS over theta^2",)),
    ("errata", "js_divergence", js_doubled, ("JS of disjoint", "value of the optimal")),
    ("mode_seeking", "kl_divergence", kl_swapped, ("KL(p || q) of the fit",)),
    ("convergence_hierarchy", "js_divergence", js_doubled, ("random: largest JS", "delta_(1/n): least JS")),
    ("convergence_hierarchy", "total_variation", halved_variation, ("delta_(1/n): least TV",)),
    ("convergence_hierarchy", "earth_movers_distance_1d", squared, ("unbounded: largest W",)),
    ("integral_probability_metrics", "total_variation", halved_variation, ("sup over |f| <= 1",)),
    ("integral_probability_metrics", "earth_movers_distance_1d", shortened_on_a_line, ("sup over 1-Lipschitz",)),
    ("integral_probability_metrics", "mmd", squared_mmd, ("sup over the kernel's ball", "MMD: largest excess")),
    ("integral_probability_metrics", "kl_divergence", kl_swapped, ("KL: asymmetry",)),
    ("transport_plans", "transport_plan", plan_of_squares, ("the exact solver's cost", "mixed: the exact")),
    ("transport_plans", "earth_movers_distance_1d", shortened_on_a_line, ("mixed: closed form",)),
    ("parallel_lines", "earth_movers_distance", shortened, ("W, largest difference",)),
    ("continuity", "earth_movers_distance", shortened, ("W: quotient from the right",)),
    ("continuity", "earth_movers_distance_1d", squared, ("g = theta / z, n",)),
    ("gradient_identity", "earth_movers_distance", shortened, ("generator with weights: relative",)),
    ("gradient_identity", "generator_loss", generator_that_climbs, ("generator with weights: relative",)),
    ("duality", "solve", random_potentials, ("potentials: mean", "their critic: mean cosine")),
    ("duality", "solve", shuffled_partners, ("their critic: mean cosine",)),
    ("penalty_bias", "gradient_penalty", penalty_of_another_target, ("slope, W = 1", "slope over")),
    ("errata", "earth_movers_distance", shortened, ("transport cost: W_1",)),
    ("manifolds", "load_digits", noise_for_digits, ("TwoNN, digits", "random image to the nearest")),
    ("manifolds", "dimension", doubled_dimension, ("TwoNN, a sphere", "TwoNN, samples of a generator")),
    pytest.param(
        "low_dimensional_manifolds", "distance_to_perfect", eps_without_the_slope, ("log(1 - D): gradient norm over",),
        marks=pytest.mark.long,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attribute", "plant", "claims"), PLANTS)
def test_a_planted_error_is_found_by_the_right_claim(
    name: str, attribute: str, plant: object, claims: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = reproduce.experiment(name)

    def failing() -> set[str]:
        with reproduce._seeded(0):
            finding = module.run(0, small=True)
        return {claim for claim in claims for one in finding.numbers if one.what.startswith(claim) and not one.holds}

    if (name, claims) not in CHECKED:
        assert not failing()
        CHECKED.add((name, claims))
    monkeypatch.setattr(module, attribute, plant)
    assert failing() == set(claims)


CHECKED: set[object] = set()


def test_shuffled_labels_break_the_ranks() -> None:
    w = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort().values
    assert estimate_tracks_quality.spearman(5 * w**2, w) == pytest.approx(1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert abs(estimate_tracks_quality.spearman(w[order], w)) < 0.75
    tied = torch.tensor([1.0, 1.0, 2.0, 2.0])
    assert estimate_tracks_quality.spearman(tied, torch.arange(4.0)) == pytest.approx(4 / 20**0.5)
