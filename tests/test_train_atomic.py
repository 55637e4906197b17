"""Files that are there whole, or not at all."""

import os
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.train.run.atomic import replace, whole_file


def test_a_file_changes_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("old")
    with whole_file(path) as unfinished:
        assert (unfinished.parent, unfinished.suffix) == (tmp_path, ".yaml")
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"config.yaml": "new"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as unfinished:
            unfinished.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"config.yaml": "old"}


def test_a_folder_that_is_missing_is_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "config.yaml"
    with pytest.raises(FileNotFoundError) as caught, whole_file(path):
        raise AssertionError("the block began")
    assert caught.value.filename == str(path)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished, path = tmp_path / "unfinished", tmp_path / "whole"
    unfinished.write_text("all")
    done, rename = [], os.replace
    numbers = {os.stat(each).st_ino: each.name for each in (unfinished, tmp_path)}
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(numbers[os.fstat(descriptor).st_ino]))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), rename(*paths)))
    replace(unfinished, path)
    assert done == ["unfinished", "renamed", tmp_path.name]
    assert path.read_text() == "all"
