"""subPaths of an emptyDir are found in the mount table, and nothing else is changed."""

from __future__ import annotations

from typing import Any

import pytest

from parma_api.volumes import empty_dir_of, empty_dir_root, volume_of
from parma_shim.errors import RefusedError
from parma_shim.sandbox.subpaths import MountRow, host_mounts, parse_mounts, resolve_subpaths

POD = "/var/lib/kubelet/pods/u-1"
SUBPATH = f"{POD}/volume-subpaths/scratch/box/3"
DISK = "/docker/volumes/x/_data"
ON_DISK = f"""\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 8:1 {DISK} /var rw,relatime shared:2 - ext4 /dev/sda1 rw
30 22 8:1 {DISK}/lib/kubelet/pods/u-1/volumes/kubernetes.io~empty-dir/scratch/a\\040b/c {SUBPATH} rw - ext4 /dev/sda1 rw
"""
IN_MEMORY = f"""\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
31 21 0:77 / {POD}/volumes/kubernetes.io~empty-dir/scratch rw - tmpfs tmpfs rw,size=4096k
32 21 0:77 /part {SUBPATH} rw - tmpfs tmpfs rw,size=4096k
"""


def document(*sources: str) -> dict[str, Any]:
    mounts = [{"destination": f"/{n}", "source": s} for n, s in enumerate(sources)]
    return {"mounts": [*mounts, {"destination": "/proc", "type": "proc"}], "other": 1}


def sources(resolved: dict[str, Any]) -> list[str]:
    return [mount.get("source", "") for mount in resolved["mounts"]]


@pytest.mark.parametrize(("table", "part"), [(ON_DISK, "a b/c"), (IN_MEMORY, "part")])
def test_the_part_of_the_volume(table: str, part: str) -> None:
    other = f"{POD}/volumes/kubernetes.io~secret/s"
    found = resolve_subpaths(
        document(SUBPATH, other), lambda: parse_mounts(table), lambda path: path.endswith("scratch")
    )
    assert sources(found) == [
        f"{POD}/volumes/kubernetes.io~empty-dir/scratch/{part}",
        other,
        "",
    ]
    assert found["other"] == 1
    volume = volume_of(sources(found)[0])
    assert volume.policy_source == f"sandbox:///volumes/empty-dir/scratch/{part}"
    assert empty_dir_root(volume.name) == "/volumes/empty-dir/scratch"


def test_a_sub_path_of_another_volume_stays_and_no_table_is_read() -> None:
    def read() -> list[MountRow]:
        raise AssertionError

    given = document(SUBPATH)
    assert resolve_subpaths(given, read, lambda _: False) == given


@pytest.mark.parametrize(
    "table",
    [
        "",
        IN_MEMORY.replace(f"32 21 0:77 /part {SUBPATH}", "32 21 0:77 /part /elsewhere"),
        IN_MEMORY.replace("32 21 0:77 /part", "32 21 0:99 /part"),
        ON_DISK.replace("empty-dir/scratch/a\\040b/c", "empty-dir/other/a"),
        ON_DISK.replace("empty-dir/scratch/a\\040b/c", "empty-dir/scratchy"),
    ],
    ids=["no table", "not mounted", "another file system", "another volume", "another name"],
)
def test_one_that_cannot_be_told_is_refused(table: str) -> None:
    with pytest.raises(RefusedError, match="which part of the emptyDir"):
        resolve_subpaths(document(SUBPATH), lambda: parse_mounts(table), lambda _: True)


def test_other_paths_have_no_empty_dir() -> None:
    assert empty_dir_of("/etc") is None
    assert empty_dir_of(f"{POD}/volumes/kubernetes.io~empty-dir/scratch") is None


def test_this_machines_own_table() -> None:
    rows = host_mounts()
    assert any(row.point == "/proc" and row.filesystem == "proc" for row in rows)
