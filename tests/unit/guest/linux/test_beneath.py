"""K1 and its kin on a real tree: no path, link or race leads out of the directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_api.status import InvalidArgumentError
from parma_guest.linux.beneath import Beneath, split
from parma_guest.linux.errno import KernelError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_text("untouched")
    return folder


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Iterator[Beneath]:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    with Beneath(str(root)) as beneath:
        yield beneath
    assert listing(outside) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", "..", "../x", "a/../x", "a//b", "a/", "./a", "a/.", "a\0b"),
        *("x" * 256, "/".join("a" * 33), "é" * 200, "a/" * 600 + "a"),
    ],
)
def test_paths_that_are_not_normal_are_refused(tree: Beneath, path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        split(path)
    with pytest.raises(InvalidArgumentError):
        tree.write(path, b"x", 0o644)
    with pytest.raises(InvalidArgumentError):
        tree.mkdir(path)
    with pytest.raises(InvalidArgumentError):
        tree.symlink(path, "target")


def test_write_through_a_link_to_a_directory(tree: Beneath, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "link").symlink_to(outside)
    for attempt in (
        lambda: tree.write("link/victim", b"x", 0o644),
        lambda: tree.write("link/new", b"x", 0o644),
        lambda: tree.mkdir("link/new"),
        lambda: tree.mkdir_new("link/new"),
        lambda: tree.make_parents("link/new/x"),
        lambda: tree.symlink("link/new", "x"),
        lambda: tree.remove("link/victim"),
        lambda: tree.rename("a", "link/a"),
        lambda: tree.chown("link/victim", (1, 1)),
        lambda: tree.append("link/victim", b"x"),
        lambda: tree.overwrite("link/victim", b"x"),
    ):
        with pytest.raises(KernelError) as caught:
            attempt()
        assert caught.value.number in (errno.ELOOP, errno.ENOTDIR)


def test_write_onto_a_link_replaces_the_link(tree: Beneath, outside: Path, tmp_path: Path) -> None:
    place = tmp_path / "root" / "link"
    place.symlink_to(outside / "victim")
    tree.write("link", b"new", 0o640)
    assert not place.is_symlink()
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("target", ["../outside/victim", "dangling", "/etc/passwd"])
def test_open_append_and_overwrite_follow_no_link(
    tree: Beneath, tmp_path: Path, target: str
) -> None:
    (tmp_path / "root" / "link").symlink_to(target)
    for attempt in (
        lambda: tree.open("link", os.O_RDONLY),
        lambda: tree.append("link", b"x"),
        lambda: tree.overwrite("link", b"x"),
        lambda: tree.mkdir("link"),
    ):
        with pytest.raises(KernelError) as caught:
            attempt()
        assert caught.value.number in (errno.ELOOP, errno.ENOTDIR)
    assert not (tmp_path / "root" / "dangling").exists()


def test_a_link_inside_is_not_followed_either(tree: Beneath, tmp_path: Path) -> None:
    (tmp_path / "root" / "inner").symlink_to("a")
    with pytest.raises(KernelError):
        tree.write("inner/x", b"", 0o600)


def test_removing_a_link_leaves_its_target(tree: Beneath, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "a" / "link").symlink_to(outside)
    tree.remove("a")
    assert not (tmp_path / "root" / "a").exists()
    assert outside.exists()


def test_special_files_are_not_written(tree: Beneath, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root" / "fifo")
    with pytest.raises(KernelError):
        tree.open("fifo", os.O_WRONLY | os.O_NONBLOCK)


def test_ordinary_work(tree: Beneath, tmp_path: Path) -> None:
    root = tmp_path / "root"
    tree.make_parents("x/y/file")
    tree.write("x/y/file", b"one", 0o600, (1000, 1001))
    tree.write("x/y/file", b"two", 0o444, (1000, 1001))
    about = (root / "x/y/file").stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (1000, 1001, 0o444)
    assert tree.append("x/y/file", b"!") == 4
    assert tree.size("x/y/file") == 4
    tree.overwrite("x/y/file", b"3")
    assert (root / "x/y/file").read_bytes() == b"3"
    tree.mkdir("x/z", 0o1777 & 0o777)
    tree.rename("x/y/file", "x/z/moved")
    assert sorted(tree.listing("x/z")) == ["moved"]
    assert tree.exists("x/z/moved")
    assert not tree.exists("x/y/file")
    assert not tree.exists("no/where")
    tree.symlink("x/link", "z/moved")
    assert (root / "x/link").readlink() == Path("z/moved")
    assert listing(root / "x/y") == []
    with pytest.raises(KernelError):
        tree.mkdir_new("x/z")


def test_a_root_that_is_a_link_is_refused(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "root").symlink_to(outside)
    with pytest.raises(KernelError):
        Beneath(str(tmp_path / "root"))
