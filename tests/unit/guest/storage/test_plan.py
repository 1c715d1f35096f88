"""Plans as text, and the argument for leaving out a layer that occurs twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.ids import ContainerId, RootHash
from parma_api.status import DataLossError, InvalidArgumentError
from parma_guest import ops
from parma_guest.linux.blockdev import Disk, ScsiAddress
from parma_guest.storage import paths, plan
from parma_guest.storage.claims import Claim
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.ledger import Layer, Overlay, Scratch
from parma_guest.storage.overlay import options, without_repetition
from parma_guest.storage.scratch import (
    ScratchDisk,
    check_integrity_superblock,
    fill_random,
    mkfs_arguments,
)

A, B = RootHash("a" * 64), RootHash("b" * 64)
ADDRESS = ScsiAddress(0, 3)
DISK = Disk("/dev/sdc", "8:32")
POD = "/run/gcs/c/" + "1" * 64
CONTAINER = ContainerId("2" * 64)
ROOT = f"/run/gcs/c/{CONTAINER}/rootfs"


def test_layer() -> None:
    layer = Layer("/run/mounts/scsi/m3", A, ADDRESS, "layer-7")
    steps = plan.mount_layer(layer, LayerClaim(ADDRESS, DISK, Claim(A, 300)))
    assert ops.describe(steps) == (
        "dm create layer-7",
        f"dm load layer-7 ro: 0 2400 verity 1 8:32 8:32 4096 4096 300 301 sha256 {A} {'0' * 64}",
        "check layer-7: ext4 of 1228800 bytes",
        "mkdir /run/mounts/scsi/m3",
        "mount ext4 layer-7 on /run/mounts/scsi/m3: 0x5 noload",
    )
    assert ops.describe(plan.unmount_layer(layer)) == (
        "umount /run/mounts/scsi/m3",
        "rmdir /run/mounts/scsi/m3",
        "dm remove layer-7",
    )


def test_scratch() -> None:
    scratch = Scratch(POD, ADDRESS, "integrity-1", "scratch-1")
    steps = plan.mount_scratch(scratch, ScratchDisk(ADDRESS, DISK, 129248), 0.0)
    assert ops.describe(steps) == (
        "dm-integrity format 8:32, 129248 sectors",
        "dm create integrity-1",
        "dm load integrity-1 rw: 0 129248 integrity 8:32 0 32 D 5 journal_sectors:1 block_size:4096 "
        "interleave_sectors:32768 buffer_sectors:128 fix_padding",
        "dm create scratch-1",
        "dm load scratch-1 rw: crypt over integrity-1, 129248 sectors, new key",
        "mkfs.ext4 scratch-1",
        f"mkdir {POD}",
        f"mount ext4 scratch-1 on {POD}: 0x404 noinit_itable,barrier=0",
    )
    assert ops.describe(plan.unmount_scratch(scratch)) == (
        f"umount {POD}",
        f"rmdir {POD}",
        "dm remove scratch-1",
        "dm remove integrity-1",
    )


def layers(*roots: RootHash) -> list[Layer]:
    return [
        Layer(f"/run/mounts/scsi/m{n}", root, ScsiAddress(0, n), f"layer-{n}")
        for n, root in enumerate(roots)
    ]


def test_writable_overlay() -> None:
    below = layers(B, A)
    path = f"{POD}/scratch/{CONTAINER}"
    overlay = Overlay(ROOT, CONTAINER, tuple(one.target for one in below), path, POD)
    assert ops.describe(plan.mount_overlay(overlay, below)) == (
        f"make {path}/upper and work",
        f"mkdir {ROOT}",
        f"mount overlay on {ROOT}: upper {path}, lower /run/mounts/scsi/m0 /run/mounts/scsi/m1",
    )
    assert ops.describe(plan.unmount_overlay(overlay, "/trash")) == (
        f"umount {ROOT}",
        f"rmdir {ROOT}",
        f"rmdir /run/gcs/c/{CONTAINER}",
        f"discard {path}",
    )


def test_read_only_overlay_of_one_layer() -> None:
    below = layers(A)
    overlay = Overlay(ROOT, CONTAINER, (below[0].target,), None, None)
    assert ops.describe(plan.mount_overlay(overlay, below))[-1] == (
        f"mount overlay on {ROOT}: upper none, lower /run/mounts/scsi/m0 /run/parma/empty"
    )


def test_overlay_options_are_all_explicit() -> None:
    rows = options(("/l1", "/l2"), "/s")
    assert rows[:4] == (
        ("lowerdir+", "/l1"),
        ("lowerdir+", "/l2"),
        ("upperdir", "/s/upper"),
        ("workdir", "/s/work"),
    )
    assert dict(rows[4:]) == dict.fromkeys(
        ("index", "xino", "metacopy", "redirect_dir", "nfs_export"), "off"
    )
    assert ("ro", None) in options(("/l1", "/l2"), None)


def test_a_repeated_layer_stays_where_it_is_topmost() -> None:
    top_first = [(A, "/1"), (B, "/2"), (A, "/1"), (B, "/4"), (A, "/5")]
    assert without_repetition(top_first) == ("/1", "/2")


# A layer: path of at most two parts -> "file:<content>", "dir", "opaque" (a directory that hides), "whiteout".
names = st.sampled_from("xyz")
kinds = st.sampled_from(["file:1", "file:2", "dir", "opaque", "whiteout"])
inner = st.dictionaries(names, st.sampled_from(["file:1", "file:2", "whiteout"]), max_size=3)
layer_trees = st.dictionaries(names, st.tuples(kinds, inner), max_size=3)


def merged(stack: list[dict[str, tuple[str, dict[str, str]]]]) -> dict[str, object]:
    """What overlayfs shows of layers, top first (Documentation/filesystems/overlayfs.rst)."""
    result: dict[str, object] = {}
    for name in {name for one in stack for name in one}:
        content: dict[str, str] | None = None
        for one in stack:
            if name not in one:
                continue
            kind, below = one[name]
            if kind.startswith("file"):
                if content is None:
                    result[name] = kind
                break
            if kind == "whiteout":
                break
            content = {**below, **(content or {})}
            if kind == "opaque":
                break
        if content is not None:
            result[name] = {k: v for k, v in content.items() if v != "whiteout"}
    return result


@given(
    st.lists(layer_trees, min_size=1, max_size=3),
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_leaving_out_the_lower_occurrence_changes_nothing(
    trees: list[dict[str, tuple[str, dict[str, str]]]], order: list[int]
) -> None:
    numbers = [number % len(trees) for number in order]
    roots = [(RootHash(str(number) * 64), str(number)) for number in numbers]
    fewer = [trees[int(target)] for target in without_repetition(roots)]
    assert merged([trees[number] for number in numbers]) == merged(fewer)


def test_mkfs_makes_neither_journal_nor_copies() -> None:
    words = mkfs_arguments("/dev/dm-1")
    assert words[0] == "/usr/sbin/mke2fs"
    assert words[-1] == "/dev/dm-1"
    assert "^has_journal,^resize_inode,sparse_super2" in words
    assert any("num_backup_sb=0" in word for word in words)


@pytest.mark.parametrize("stated", [129249, 129256, 129240, 0, 2**64 - 1])
def test_an_integrity_superblock_with_another_size(stated: int) -> None:
    block = b"integrt\0" + bytes(8) + stated.to_bytes(8, "little") + bytes(4072)
    with pytest.raises(DataLossError):
        check_integrity_superblock(block, 129248)


def test_an_integrity_superblock_as_computed() -> None:
    block = b"integrt\0" + bytes(8) + (129248).to_bytes(8, "little") + bytes(4072)
    check_integrity_superblock(block, 129248)
    with pytest.raises(DataLossError):
        check_integrity_superblock(bytes(4096), 0)


def test_keys_are_random_and_filled_in_place() -> None:
    one, two = bytearray(96), bytearray(96)
    fill_random(one)
    fill_random(two)
    assert one != two
    assert one.count(0) < 20


@pytest.mark.parametrize(
    "target",
    [
        *("/run/mounts/scsi/m", "/run/mounts/scsi/m01", "/run/mounts/scsi/m1/"),
        *("/run/mounts/scsi/m1\n", "run/mounts/scsi/m1", "/run/mounts/scsi/../m1"),
        *("/run/mounts/scsi/m1000000", "/", ""),
    ],
)
def test_layer_targets(target: str) -> None:
    with pytest.raises(InvalidArgumentError):
        paths.check_layer_target(target)


def test_paths_of_pods_and_containers() -> None:
    paths.check_layer_target("/run/mounts/scsi/m0")
    assert paths.sandbox_of_scratch(POD) == "1" * 64
    assert paths.container_of_root(ROOT) == CONTAINER
    assert paths.parse_container_scratch(f"{POD}/scratch/{CONTAINER}") == (POD, CONTAINER)
    for bad in ("", ROOT + "/", POD + "\n", "/run/gcs/c/" + "A" * 64, f"{POD}/../x"):
        for parse in (
            paths.sandbox_of_scratch,
            paths.container_of_root,
            paths.parse_container_scratch,
        ):
            with pytest.raises(InvalidArgumentError):
                parse(bad)
