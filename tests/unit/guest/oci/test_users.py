"""Users and groups of the image (policy.md 8.5), and an image that tries to lead out of itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parma_api.status import InvalidArgumentError, ResourceExhaustedError
from parma_guest.oci.parse import User
from parma_guest.oci.users import MAX_FILE, Identities, Identity, accounts, read_in_root, resolve

PASSWD = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\ntwin:x:1000:44::/:\n77:x:78:79::/:\n"
GROUP = "root:x:0:\napps:x:1001:\nvideo:x:44:app\nagain:x:44:\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


def user(name: str = "", uid: int = 0, gid: int = 0, more: tuple[int, ...] = ()) -> User:
    return User(uid, gid, more, None, name)


@pytest.mark.parametrize(
    ("asked", "uid", "name", "groups"),
    [
        (user(), 0, "root", [(0, "root")]),
        (user(uid=1000, gid=44), 1000, "app", [(44, "video")]),  # of several the first
        (user(uid=12345), 12345, "", [(0, "root")]),  # difference k
        (user(uid=5, gid=12345, more=(44, 9)), 5, "", [(12345, ""), (44, "video"), (9, "")]),
        (user("app"), 1000, "app", [(1001, "apps")]),
        (user("1000"), 1000, "app", [(1001, "apps")]),
        (user("12345"), 12345, "", [(0, "root")]),
        (user("app:video"), 1000, "app", [(44, "video")]),
        (user("app:44"), 1000, "app", [(44, "video")]),
        (user("app:5"), 1000, "app", [(5, "")]),
        (user("12345:apps"), 12345, "", [(1001, "apps")]),
        (user("app", uid=5, gid=6, more=(7,)), 1000, "app", [(1001, "apps"), (7, "")]),
        (user("77"), 78, "77", [(79, "")]),  # a name of digits is a name first
    ],
)
def test_resolve(
    root: Path, asked: User, uid: int, name: str, groups: list[tuple[int, str]]
) -> None:
    found = resolve(str(root), asked)
    assert found.user == Identity(uid, name)
    assert found.groups == tuple(Identity(*group) for group in groups)
    assert found.umask_text == "0022"


@pytest.mark.parametrize("name", ["nobody", "app:nogroup", ":video", "app:", "4294967295"])
def test_unknown_names(root: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        resolve(str(root), user(name))


@pytest.mark.parametrize("umask", [0, 0o7, 0o22, 0o777])
def test_umask(root: Path, umask: int) -> None:
    found = resolve(str(root), User(0, 0, (), umask, ""))
    assert found.umask_text == f"{umask:04o}"


def test_an_image_without_files(tmp_path: Path) -> None:
    found = resolve(str(tmp_path), user(uid=7, gid=8))
    assert found == Identities(Identity(7, ""), (Identity(8, ""),), 0o022)


def test_links_do_not_lead_out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "passwd"
    outside.write_text("evil:x:1000:0:::\n")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(outside)
    assert resolve(str(root), user(uid=1000)).user.name == ""
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../../../" + str(outside))
    assert resolve(str(root), user(uid=1000)).user.name == ""


def test_links_inside_are_followed_as_in_the_container(root: Path) -> None:
    (root / "usr").mkdir()
    (root / "etc/passwd").rename(root / "usr/passwd")
    (root / "etc/passwd").symlink_to("/usr/passwd")
    assert resolve(str(root), user(uid=1000)).user.name == "app"


def test_what_is_no_regular_file_is_not_there(root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert resolve(str(root), user(uid=1000)).user.name == ""
    (root / "etc/group").unlink()
    (root / "etc/group").mkdir()
    assert resolve(str(root), user(gid=44)).groups[0].name == ""


def test_magic_links_are_not_followed(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/proc/self/root/etc/passwd")
    (root / "proc").symlink_to("/proc")
    assert read_in_root(str(root), "etc/passwd") == b""


def test_a_huge_file(root: Path) -> None:
    with (root / "etc/passwd").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(ResourceExhaustedError):
        resolve(str(root), user())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "app",
        "app:x",
        "app:x:",
        "app:x:a:b",
        ":x:1:2",
        "app:x:-1:2",
        "app:x:1",
        "app:x:99999999999:1",
    ],
)
def test_lines_of_another_form_are_not_there(line: str) -> None:
    assert accounts(line.encode(), group_field=True) == ()


def test_bytes_that_are_no_text() -> None:
    assert accounts(b"\xff\xfe:x:1:2\n", group_field=True)[0].number == 1
