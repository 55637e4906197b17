"""The history of a run: means, the file of rows, and what is kept of a file that is damaged."""

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import rows, run
from wgan_fast import CriticOutput
from wgan_fast.train import Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run.history import SKIPPED, History


def test_a_damaged_history_does_not_stop_a_run(few_samples: None, tmp_path: Path) -> None:
    run(tmp_path, steps=9, log_every=4)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes().splitlines()[0] + b'\n[1]\n"x"\n{"step": 5}\n{"step": 2\n\xff')
    Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 12, "log_every": 12})).run()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [4, 12]


def output(loss: float, wasserstein: float, penalty: float) -> CriticOutput:
    return CriticOutput(torch.tensor(loss), torch.tensor(wasserstein), torch.tensor(penalty))


def test_a_row_holds_the_means_since_the_row_before(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        history.add(output(1.0, 2.0, 3.0))
        history.add(output(3.0, 6.0, 9.0))
        history.add_generator(torch.tensor(0.5))
        first = history.end_row(10, gradient_norm=1.5)
        history.write()
        history.add(output(-1.0, 1.0, 0.0))
        assert rows(tmp_path) == [first]  # at once, not when the run ends
        second = history.end_row(20)
        history.write()
        assert rows(tmp_path) == [first, second]
    assert first == {
        "step": 10,
        "critic_loss": 2.0,
        "generator_loss": 0.5,
        "wasserstein": 4.0,
        "penalty": 6.0,
        "gradient_norm": 1.5,
    }
    assert second == {"step": 20, "critic_loss": -1.0, "generator_loss": 0.0, "wasserstein": 1.0, "penalty": 0.0}
    assert rows(tmp_path) == history.rows == [first, second]


def test_the_divergence_is_that_of_the_loss_without_the_penalty(tmp_path: Path) -> None:
    """A critic that tells nothing apart has the loss 2 log 2, and a perfect one 0."""
    history = History(tmp_path, estimate="jensen_shannon")
    history.add(output(2 * math.log(2) + 0.5, 0.0, 0.5))
    assert history.means()["jensen_shannon"] == pytest.approx(0, abs=1e-6)
    history = History(tmp_path, estimate="jensen_shannon")
    history.add(output(0.5, 0.0, 0.5))
    assert history.means()["jensen_shannon"] == pytest.approx(math.log(2))


@pytest.mark.parametrize(("critic", "generator", "name"), [(math.nan, 0.0, "critic"), (0.0, math.inf, "generator")])
def test_a_loss_that_is_not_finite_is_an_error(critic: float, generator: float, name: str, tmp_path: Path) -> None:
    history = History(tmp_path)
    history.check_finite()
    history.add(output(critic, 0.0, 0.0))
    history.add_generator(torch.tensor(generator))
    with pytest.raises(FloatingPointError, match=f"^the {name}'s loss is (nan|inf); a lower learning rate may help$"):
        history.check_finite()


def test_updates_that_a_scaler_skips_are_left_out(tmp_path: Path) -> None:
    history = History(tmp_path, scaled=True)
    history.add(output(math.inf, 0.0, math.inf), torch.tensor(math.inf))
    history.add_generator(torch.tensor(0.25))
    assert history.is_searching()
    history.check_finite()
    history.add(output(1.0, 2.0, 3.0))
    assert not history.is_searching()
    assert history.means() == {"critic_loss": 1.0, "generator_loss": 0.25, "wasserstein": 2.0, "penalty": 3.0}


def test_a_loss_that_no_scale_makes_finite_is_an_error(tmp_path: Path) -> None:
    history = History(tmp_path, scaled=True)
    for _ in range(SKIPPED + 1):
        history.check_finite()
        history.add(output(math.nan, 0.0, 0.0))
    with pytest.raises(FloatingPointError, match="^the critic's loss is nan"):
        history.check_finite()


def test_a_generator_may_still_search_after_many_updates_of_the_critic(tmp_path: Path) -> None:
    history = History(tmp_path, scaled=True)
    for _ in range(SKIPPED + 1):
        history.add(output(1.0, 2.0, 3.0))
    history.add_generator(torch.tensor(math.nan))
    history.check_finite()


def test_a_history_goes_on_from_its_state(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        history.add(output(1.0, 1.0, 1.0))
        kept = history.end_row(10)
        history.write()
        history.add(output(2.0, 0.0, 0.0))
        history.add_generator(torch.tensor(3.0))
        state = history.state_dict()
        history.end_row(20)
        history.write()
    with History(tmp_path, 15, state=state) as history:
        assert history.rows == [kept]
        history.add(output(4.0, 0.0, 0.0))
        row = history.end_row(20)
    assert (row["critic_loss"], row["generator_loss"]) == (3.0, 3.0)
    assert rows(tmp_path) == [kept, row]


def test_a_run_that_begins_keeps_no_rows(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "critic_loss": 1.0, "generator_loss": 1.0}\n')
    with History(tmp_path) as history:
        assert history.rows == []
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_other_processes_write_no_file(tmp_path: Path) -> None:
    with History(tmp_path, written=False) as history:
        history.add(output(1.0, 1.0, 1.0))
        assert history.end_row(1)["critic_loss"] == 1.0
        history.write()
    assert not list(tmp_path.iterdir())


def test_rows_that_could_not_be_written_come_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def half(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if mode == "a":
            path.write_text(path.read_text() + '{"step": 2, "crit')
            raise OSError(28, "No space left on device")
        return opened(path, mode, *more, **named)

    with History(tmp_path) as history:
        for step in range(1, 5):
            history.add(output(1.0, 1.0, 1.0))
            history.end_row(step)
            with monkeypatch.context() as patched:
                if step in (2, 4):
                    patched.setattr(Path, "open", half)
                    with pytest.raises(OSError, match="No space left"):
                        history.write()
                else:
                    history.write()
                    assert rows(tmp_path) == history.rows
    assert rows(tmp_path) == history.rows
