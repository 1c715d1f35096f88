"""PutFiles on a real tree: rules, refresh, limits (K1, K10)."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.ids import SandboxId
from parma_api.status import ApiError, InvalidArgumentError, ResourceExhaustedError
from parma_guest.linux.errno import KernelError
from parma_guest.storage import files
from parma_guest.storage.files import Entry, Kind, PodFiles

BASE = "sandboxMounts/volumes/configmap/cfg"


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def pod(tmp_path: Path) -> PodFiles:
    return PodFiles(SandboxId("a" * 64), str(tmp_path))


def file(path: str, content: bytes = b"x", **more: object) -> Entry:
    return Entry(path, Kind.FILE, content=content, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "rootfs/x"},
        {"path": "sandboxMounts"},
        {"path": "scratch/c/upper/etc/passwd"},
        {"path": "sandboxMounts/../scratch"},
        {"path": "/run/gcs/c/x"},
        {"path": ""},
        {"path": "hosts", "kind": Kind.SYMLINK, "content": b"x"},
        {"path": "hosts", "kind": Kind.DIRECTORY},
        {"path": "hosts/x"},
        {"path": "sandboxMounts/d", "kind": Kind.DIRECTORY, "content": b"x"},
        {"path": "sandboxMounts/d", "kind": Kind.DIRECTORY, "append": True},
        {"path": "sandboxMounts/f", "mode": 0o4755},
        {"path": "sandboxMounts/f", "mode": -1},
        {"path": "sandboxMounts/f", "uid": 2**32 - 1},
        {"path": "sandboxMounts/f", "gid": -1},
        {"path": "sandboxMounts/l", "kind": Kind.SYMLINK, "content": b"/etc/passwd"},
        {"path": "sandboxMounts/l", "kind": Kind.SYMLINK, "content": b"../x"},
        {"path": "sandboxMounts/l", "kind": Kind.SYMLINK, "content": b"a/../../x"},
        {"path": "sandboxMounts/l", "kind": Kind.SYMLINK, "content": b""},
        {"path": "sandboxMounts/l", "kind": Kind.SYMLINK, "content": b"\xff"},
    ],
)
def test_entries_outside_the_rules(entry: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Entry(**{"kind": Kind.FILE, **entry})  # type: ignore[arg-type]


def test_a_file_beyond_the_limit() -> None:
    with pytest.raises(ResourceExhaustedError):
        file("sandboxMounts/f", bytes(files.MAX_FILE + 1))


def test_content_is_not_shown() -> None:
    assert "secret" not in repr(file("sandboxMounts/f", b"secret"))


def test_first_files(pod: PodFiles, tmp_path: Path) -> None:
    pod.put(
        [
            file("hosts", b"127.0.0.1 localhost\n"),
            file(f"{BASE}/key", b"value", mode=0o400, uid=1000, gid=2000),
            Entry(f"{BASE}/dir", Kind.DIRECTORY, 0o750, 5, 6),
        ]
    )
    about = (tmp_path / BASE / "key").stat()
    assert (about.st_mode & 0o777, about.st_uid, about.st_gid) == (0o400, 1000, 2000)
    about = (tmp_path / BASE / "dir").stat()
    assert (about.st_mode & 0o777, about.st_uid, about.st_gid) == (0o750, 5, 6)
    assert (tmp_path / "hosts").read_bytes() == b"127.0.0.1 localhost\n"


def test_network_files_keep_their_inode(pod: PodFiles, tmp_path: Path) -> None:
    pod.put([file("hosts", b"a long first content\n")])
    before = (tmp_path / "hosts").stat().st_ino
    pod.put([file("hosts", b"short\n")])
    assert (tmp_path / "hosts").read_bytes() == b"short\n"
    assert (tmp_path / "hosts").stat().st_ino == before


def test_refresh_of_a_flat_directory(pod: PodFiles, tmp_path: Path) -> None:
    pod.put([file(f"{BASE}/a", b"1"), file(f"{BASE}/b", b"1"), file(f"{BASE}/d/e", b"1")])
    directory = (tmp_path / BASE).stat().st_ino
    held = (tmp_path / BASE / "a").open("rb")
    pod.put([file(f"{BASE}/a", b"2"), file(f"{BASE}/c", b"2")], replace=BASE)
    assert {p.name: p.read_bytes() for p in (tmp_path / BASE).iterdir()} == {"a": b"2", "c": b"2"}
    assert (tmp_path / BASE).stat().st_ino == directory, "containers have it bound"
    with held:
        assert held.read() == b"1", "who reads the old file goes on reading it"


def atomic(stamp: str, value: bytes) -> list[Entry]:
    """A volume as kubelet's AtomicWriter leaves it."""
    return [
        Entry(f"{BASE}/key", Kind.SYMLINK, content=b"..data/key"),
        Entry(f"{BASE}/..data", Kind.SYMLINK, content=stamp.encode()),
        file(f"{BASE}/{stamp}/key", value),
        Entry(f"{BASE}/{stamp}", Kind.DIRECTORY, 0o755),
    ]


def test_refresh_in_kubelets_shape(pod: PodFiles, tmp_path: Path) -> None:
    pod.put(atomic("..2026_01", b"one"), replace=BASE)
    assert (tmp_path / BASE / "key").read_bytes() == b"one"
    pod.put(atomic("..2026_02", b"two"), replace=BASE)
    assert (tmp_path / BASE / "key").read_bytes() == b"two"
    assert listing(tmp_path / BASE) == ["..2026_02", "..data", "key"]


def test_a_refresh_to_nothing_keeps_the_directory(pod: PodFiles, tmp_path: Path) -> None:
    pod.put([file(f"{BASE}/a")])
    pod.put([], replace=BASE)
    assert listing(tmp_path / BASE) == []


@pytest.mark.parametrize("replace", ["sandboxMounts", "scratch/x", "/", "..", "sandboxMounts/../x"])
def test_what_may_be_replaced(pod: PodFiles, replace: str) -> None:
    with pytest.raises(InvalidArgumentError):
        pod.put([], replace=replace)


def test_a_refresh_writes_beneath_its_directory_only(pod: PodFiles) -> None:
    with pytest.raises(InvalidArgumentError):
        pod.put([file("sandboxMounts/other/f")], replace=BASE)
    with pytest.raises(InvalidArgumentError):
        pod.put([file(f"{BASE}x/f")], replace=BASE)


def test_a_path_is_named_once(pod: PodFiles) -> None:
    with pytest.raises(InvalidArgumentError):
        pod.put([file(f"{BASE}/a"), file(f"{BASE}/a")])


def test_a_container_plants_links(pod: PodFiles, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    (tmp_path / "sandboxMounts").mkdir()
    (tmp_path / "sandboxMounts" / "link").symlink_to(outside)
    for entries, replace in (
        ([file("sandboxMounts/link/victim", b"evil")], ""),
        ([file("sandboxMounts/link/victim", b"evil", append=True)], ""),
        ([Entry("sandboxMounts/link/d", Kind.DIRECTORY)], ""),
        ([], "sandboxMounts/link"),
        ([file("sandboxMounts/link/x/y")], "sandboxMounts/link/x"),
    ):
        with pytest.raises(KernelError):
            pod.put(entries, replace)
    pod.put([file("sandboxMounts/link", b"a file takes the link's place")])
    assert (tmp_path / "sandboxMounts" / "link").is_file()
    assert listing(outside) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"


def test_the_network_file_is_a_link(pod: PodFiles, tmp_path: Path) -> None:
    victim = tmp_path.parent / f"{tmp_path.name}-victim"
    victim.write_text("untouched")
    (tmp_path / "hosts").symlink_to(victim)
    with pytest.raises(KernelError):
        pod.put([file("hosts", b"evil")])
    assert victim.read_text() == "untouched"


def test_a_file_in_pieces(pod: PodFiles, tmp_path: Path) -> None:
    pod.put([file(f"{BASE}/f", b"one ")])
    pod.put([file(f"{BASE}/f", b"two", append=True)])
    assert (tmp_path / BASE / "f").read_bytes() == b"one two"


def test_limits_hold_over_calls(pod: PodFiles) -> None:
    pod.put([file(f"{BASE}/f", bytes(files.MAX_FILE))])
    with pytest.raises(ResourceExhaustedError):
        pod.put([file(f"{BASE}/f", b"x", append=True)])
    for number in range(files.MAX_TOTAL // files.MAX_FILE - 1):
        pod.put([file(f"{BASE}/g{number}", bytes(files.MAX_FILE))])
    with pytest.raises(ResourceExhaustedError):
        pod.put([file(f"{BASE}/last")])
    pod.put([file(f"{BASE}/f", b"")], replace=BASE)
    pod.put([file(f"{BASE}/last")])


def test_too_many_entries(pod: PodFiles) -> None:
    with pytest.raises(ResourceExhaustedError):
        pod.put([file(f"{BASE}/{number}", b"") for number in range(files.MAX_ENTRIES + 1)])


def test_without_the_pods_directory(tmp_path: Path) -> None:
    with pytest.raises(ApiError):
        PodFiles(SandboxId("a" * 64), str(tmp_path / "absent")).put([file("hosts")])
