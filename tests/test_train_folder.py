"""The folder of a run: who may write into it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options, run, write_image
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run.folder import claim_run_folder

pytestmark = pytest.mark.usefixtures("few_samples")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with the files' content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")
    }


def of_a_stranger(place: Path) -> tuple[Path, list[object]]:
    """Names that a run has, too."""
    for name in ("samples/cat.png", "tensorboard/report.html"):
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("precious")
    for name in ("metrics.json", "config.yaml", "checkpoint.pt"):
        (place / name).write_text("data: mine")
    return place, []


def with_notes(place: Path) -> tuple[Path, list[object]]:
    run(place)
    (place / "notes.txt").write_text("precious")
    return place, []


def with_pictures(place: Path) -> tuple[Path, list[object]]:
    run(place)
    write_image(place / "samples" / "cat.png")
    return place, []


def with_a_link(place: Path) -> tuple[Path, list[object]]:
    run(place)
    (place / "curve.png").unlink()
    (place / "curve.png").symlink_to(place.parent / "elsewhere.png")
    return place, []


def with_the_data(place: Path) -> tuple[Path, list[object]]:
    run(place, sample_every=1)
    return place, ["--data", place / "samples"]


def around_the_current_folder(place: Path) -> tuple[Path, list[object]]:
    run(place)
    os.chdir(place / "samples")
    return place, []


def the_current_folder(place: Path) -> tuple[Path, list[object]]:
    run(place)
    os.chdir(place)
    return Path("."), []


def beside_one_that_waits(place: Path) -> tuple[Path, list[object]]:
    run(place)
    run(place.with_name("run.replaced"))
    return place, []


STRANGE = [
    of_a_stranger,
    with_notes,
    with_pictures,
    with_a_link,
    with_the_data,
    around_the_current_folder,
    the_current_folder,
    beside_one_that_waits,
]


@pytest.mark.parametrize("arrange", STRANGE)
def test_only_a_run_and_nothing_else_is_replaced(arrange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, more = arrange(tmp_path / "run")
    before = tree(tmp_path)
    result = cli("train", "--out", folder, "--overwrite", *options(), *more)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert result.stderr.startswith("error: --out: ")
    assert tree(tmp_path) == before


def test_no_folder_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--overwrite"]):
        result = cli("train", "--out", "", *options(), *more)
        assert (result.exit_code, result.stderr) == (2, "error: --out: expected a path, got ''\n")
    assert not tree(tmp_path)


def test_a_named_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    of_a_stranger(tmp_path / "strange")
    before = tree(tmp_path)
    for name, cured in (("run", True), ("strange", False)):
        result = cli("train", "--out", tmp_path / name, *options())
        assert result.exit_code == 2 and result.stderr.startswith("error: --out: "), result.output
        assert ("--overwrite" in result.stderr) == cured
    assert tree(tmp_path) == before


def test_a_run_is_replaced_once_the_new_one_has_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, waiting = tmp_path / "run", tmp_path / "run.replaced"
    run(folder)
    before, seen = tree(folder), []
    update_generator = Trainer.update_generator

    def looking(self: Trainer, real: object) -> None:
        update_generator(self, real)
        seen.append(tree(waiting) if waiting.exists() else None)

    monkeypatch.setattr(Trainer, "update_generator", looking)
    run(folder, seed=1, overwrite=True, checkpoint_every=2)
    assert seen == [before | {".replaced": b""}] * 2 + [None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "seed: 1" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("error", [OSError(5, "broken"), KeyboardInterrupt(), FloatingPointError("nan")])
def test_a_run_is_back_where_its_successor_failed(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run")
    before = tree(tmp_path)

    def failing(*args: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "update_critic", failing)
    result = cli("train", "--out", tmp_path / "run", "--overwrite", *options(seed=1))
    assert result.exit_code and tree(tmp_path) == before, result.output


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_kill_of_the_successor_leaves_the_run_until_there_is_a_checkpoint(
    overwrite: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs after a kill. The next command with --overwrite keeps what waits, until it has a checkpoint."""
    folder, waiting = tmp_path / "run", tmp_path / "run.replaced"
    run(folder)
    before = tree(folder) | {".replaced": b""}
    with monkeypatch.context() as patched:
        patched.setattr("wgan_fast.train.run.folder._put_back", lambda folder: None)
        patched.setattr(Trainer, "update_critic", lambda *args: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                run(folder, overwrite=True)
            assert tree(waiting) == before
    result = cli("train", "--out", folder, *overwrite, *options())
    assert result.exit_code == (0 if overwrite else 2), result.output
    assert waiting.exists() != bool(overwrite)


@pytest.mark.parametrize(("command", "name"), [("sample", "mine.csv"), ("export", "mine.pt2")])
def test_no_file_is_replaced_untold(command: str, name: str, table_run: Path) -> None:
    file = table_run.parent / name
    file.write_text("precious")
    result = cli(command, table_run, "--out", file)
    assert (result.exit_code, file.read_text()) == (2, "precious")
    assert result.stderr.startswith(f"error: --out: {file} exists already; ") and result.stderr.count("\n") == 1
    assert cli(command, table_run, "--out", file, "--overwrite").exit_code == 0
    assert file.read_bytes() != b"precious"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_file_is_no_run_folder(overwrite, tmp_path):
    (tmp_path / "run").write_text("precious")
    result = cli("train", "--out", tmp_path / "run", *overwrite, *options())
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "run").read_text() == "precious"


def test_the_default_folder_is_numbered_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [claim_run_folder(TrainConfig(seed=7)) for _ in range(3)]
    assert names == [Path("runs") / f"wgan-gp-25gaussians-seed7{suffix}" for suffix in ("", "-2", "-3")]


def test_a_kill_while_a_run_begins_again_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, steps=9, log_every=4)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.yaml", "metrics.jsonl")}

    def half(path: Path, text: str) -> None:
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    trainer = Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 12}))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="^out: .* cannot be written: No space left on device"):
            trainer.run()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob("unfinished-*"))


def test_a_link_to_a_run_is_replaced_where_it_points(tmp_path: Path) -> None:
    run(tmp_path / "far" / "run")
    (tmp_path / "link").symlink_to("far/run")
    before = (tmp_path / "far" / "run" / "checkpoint.pt").stat().st_ino
    run(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "run" / "checkpoint.pt").stat().st_ino != before
    assert os.listdir(tmp_path / "far") == ["run"]


def test_a_run_is_back_where_no_folder_can_be_made_for_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run")
    before = tree(tmp_path / "run")

    def full(folder: Path, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        claim_run_folder(TrainConfig(out=tmp_path / "run", overwrite=True))
    back = tree(tmp_path / "run") == before  # pytest compares files of bytes for minutes
    assert back and os.listdir(tmp_path) == ["run"]


_LOCKING = (
    "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(); sys.stdin.read()"
)


@pytest.mark.skipif(os.name != "posix", reason="locks are POSIX's")
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run(tmp_path)
    before = tree(tmp_path)
    command = [sys.executable, "-c", _LOCKING, tmp_path / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        for settings in ({"resume": True}, {"resume": "auto"}, {"overwrite": True}):
            with pytest.raises(FileExistsError, match="^out: another process trains in "):
                run(tmp_path, **settings)
        assert tree(tmp_path) == before
        other.communicate()
    run(tmp_path, resume=True, steps=6)


@pytest.mark.parametrize("name", ["unfinished-notes.txt", "unfinished-x.npy"])
def test_what_somebody_has_not_finished_is_not_ours(name: str, tmp_path: Path) -> None:
    run(tmp_path / "run")
    for place in (tmp_path, tmp_path / "run"):
        (place / name).write_text("precious")
    with pytest.raises(FileExistsError, match=f"{name} is not a file of the run"):
        run(tmp_path / "run", overwrite=True)
    assert cli("sample", tmp_path / "run", "--out", tmp_path / "x.npy").exit_code == 0
    assert (tmp_path / name).read_text() == "precious"
