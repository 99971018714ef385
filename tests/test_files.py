"""Files appear whole or not at all, and are made once."""

import os
import threading

import pytest

from riceutils import files


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "folder"
    for name in ("first", "second"):
        with files.replacing(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in target.iterdir()] == ["second"]


def test_of_two_that_come_at_once_one_makes_the_file(tmp_path):
    target, made = tmp_path / "made", []

    def make(name):
        with files.once(target) as missing:
            if missing:
                made.append(name)
                threading.Event().wait(0.2)
                files.write_text(target, name)

    threads = [threading.Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert target.read_text() == made[0]


def test_an_unwritable_home_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(OSError, match=r"Cannot write to .*Set RICEUTILS_HOME"):
        files.home()


def test_an_unknown_chapter_names_the_known():
    with pytest.raises(ValueError, match=r"Unknown chapter '05'.*02_cnn"):
        files.chapter("05")


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path):
    target = tmp_path / "folder"
    (tmp_path / f".{os.getpid()}-folder" / "half").mkdir(parents=True)
    with files.replacing(target) as temporary:
        temporary.mkdir()
    assert not list(target.iterdir())


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    target, rename = tmp_path / "folder", os.replace
    files.write_text(target / "old", "")

    def refuse(source, goal):
        if source.name == f".{os.getpid()}-folder":
            raise PermissionError
        rename(source, goal)

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(PermissionError), files.replacing(target) as temporary:
        temporary.mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/old"]
