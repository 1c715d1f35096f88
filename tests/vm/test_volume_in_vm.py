"""Blobs that user space made, opened by a real kernel's device-mapper; and what a host can do to them.

One VM plays the whole story (`volume_agent.py`) with the sidecar's own code; each test reads its part.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from parma_api.block.integrity import BLOCK
from parma_tenant.volume.create import create_read_only, create_read_write
from parma_tenant.volume.key import Kind, VolumeKey
from tests.vm import rig

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]
EIO, EROFS, EACCES, EPERM = 5, 30, 13, 1
FILES = {
    "hello": b"hello from the volume\n",
    "big": b"".join(b"big file, line %011d\n".ljust(64, b".") % n for n in range(8192)),
    "sub/inner": b"\0\1\2" * 1000,
}
SIZE = 20 << 20


def decrypted(key: VolumeKey, blob: bytes, block: int) -> bytes:
    """One block's plaintext, whatever tags and trees say."""
    at = block * BLOCK if key.kind is Kind.READ_ONLY else key.layout.data_at(block)
    tweak = (block * 8).to_bytes(16, "little")
    cipher = Cipher(algorithms.AES(bytes(key.cipher_key()[:64])), modes.XTS(tweak))
    return cipher.decryptor().update(blob[at : at + BLOCK])


def blocks_of_big(key: VolumeKey, blob: bytes) -> Iterator[int]:
    """The blocks that hold whole lines of the big file."""
    count = key.blocks if key.kind is Kind.READ_ONLY else key.layout.blocks
    for block in range(count):
        if decrypted(key, blob, block).startswith(b"big file, line "):
            yield block


@dataclass(frozen=True)
class Story:
    steps: dict[str, dict[str, Any]]
    keys: dict[str, VolumeKey]
    console: bytes

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.steps[name]

    def files(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.steps[name]["ok"]
        return found

    def refused(self, name: str, error: str) -> str:
        assert self.steps[name].get("error") == error, self.steps[name]
        return str(self.steps[name]["message"])


@pytest.fixture(scope="module")
def story(repository: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    image = Path(os.environ.get("PARMA_UVM") or cache / "uvm/stub/current")
    assert (image / "root.img").exists(), "no UVM image: run `make uvm`"
    folder = tmp_path_factory.mktemp("volumes")
    source = folder / "source"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    disks = [folder / f"disk{lun}" for lun in range(6)]
    keys = {
        "ro": create_read_only(source, disks[0]),
        "other": create_read_only(source, folder / "other"),
        "rw": create_read_write(source, SIZE, disks[4]),
        "crash": create_read_write(source, 2 * SIZE, disks[5]),
    }
    tamper(keys["ro"], disks)
    blob = disks[4].read_bytes()
    first, *_, last = blocks_of_big(keys["rw"], blob)
    program = folder / "program.py"
    texts = {name: key.encode().hex() for name, key in keys.items()}
    agent = (repository / "tests/vm/volume_agent.py").read_text()
    program.write_text(f"KEYS = {texts!r}\nBLOCKS = {(first, last)!r}\n{agent}")
    machine = rig.build(image, repository, program, folder, ("tenant/parma_tenant",))
    *words, kernel = machine.arguments()
    console, steps = folder / "console", {}
    for chapter in ("", " story=crash", " story=after"):
        steps |= play([*words, kernel + chapter], disks, console)
    return Story(steps, keys, console.read_bytes())


def tamper(key: VolumeKey, disks: list[Path]) -> None:
    """1: a bit of the big file; 2: a bit of the tree's top; 3: the last data block is missing."""
    whole = disks[0].read_bytes()
    block = next(blocks_of_big(key, whole))
    for lun, at in ((1, block * BLOCK + 77), (2, (key.blocks + 1) * BLOCK + 5)):
        changed = bytearray(whole)
        changed[at] ^= 1
        disks[lun].write_bytes(changed)
    disks[3].write_bytes(whole[:-BLOCK])


def play(arguments: list[str], disks: list[Path], log: Path) -> dict[str, dict[str, Any]]:
    words = ["-device", "virtio-scsi-pci,id=scsi0"]
    for lun, path in enumerate(disks):
        words += ["-drive", f"if=none,id=d{lun},file={path},format=raw"]
        words += ["-device", f"scsi-hd,bus=scsi0.0,scsi-id=0,lun={lun},drive=d{lun}"]
    done = subprocess.run(
        [*arguments, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    with log.open("ab") as out:
        out.write(done.stdout + done.stderr)
    lines = done.stdout.decode(errors="replace").splitlines()
    said = [line[line.index('{"step"') :] for line in lines if '{"step"' in line]
    steps = [json.loads(line) for line in said]
    return {step.pop("step"): step for step in steps}


def whole_files() -> dict[str, dict[str, str]]:
    return {name: {"ok": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}


def with_lost_and_found(story: Story, name: str) -> dict[str, Any]:
    found = story.files(name)
    return {key: value for key, value in found.items() if not key.startswith("lost+found")}


def test_the_story_came_to_its_end(story: Story) -> None:
    assert "failed" not in story.steps, story["failed"]["trace"]
    assert "end" in story.steps, story.console.decode(errors="replace")[-2000:]
    assert story["left"]["devices"] == [], "every mapping is gone, also after a refusal"


@pytest.mark.parametrize("name", ["ro", "ro.nbd"])
def test_a_read_only_volume(story: Story, name: str) -> None:
    assert story.files(name) == whole_files()


def test_it_cannot_be_written(story: Story) -> None:
    assert story["ro.modes"]["file"]["errno"] == EROFS
    assert story["ro.modes"]["raw"]["errno"] in (EACCES, EPERM, EROFS)
    assert " crypt aes-xts-plain64 :64:logon:parma:" in story["ro.modes"]["table"]


def test_a_flipped_bit_is_an_io_error(story: Story) -> None:
    found = story.files("ro.flipped")
    assert found.pop("big")["errno"] == EIO
    assert found == {name: row for name, row in whole_files().items() if name != "big"}


def test_another_volumes_key(story: Story) -> None:
    assert "not the one that the key belongs to" in story.refused("ro.other_key", "DataLossError")


def test_a_changed_tree(story: Story) -> None:
    assert "not the one that the key belongs to" in story.refused("ro.tree", "DataLossError")


def test_a_blob_that_was_cut(story: Story) -> None:
    assert "it is another one, or was cut" in story.refused("ro.short", "DataLossError")


def test_a_read_write_volume_keeps_what_is_written(story: Story) -> None:
    written = {"written": {"ok": hashlib.sha256(b"canary-in-clear-text" * 50000).hexdigest()}}
    for name in ("rw.first", "rw.again"):
        assert with_lost_and_found(story, name) == whole_files() | written
    assert story["rw.canary"]["found"] is False
    again = story["rw.nbd"]["again"]["ok"]
    assert {
        name: row for name, row in again.items() if "lost" not in name
    } == whole_files() | written


def test_every_block_has_its_tag(story: Story) -> None:
    assert story["rw.whole"]["ok"] == story["rw.size"]["wanted"]


def test_the_kernels_superblock_is_the_computed_one(story: Story) -> None:
    assert bytes.fromhex(story["rw.superblock"]["hex"]) == story.keys["rw"].layout.superblock()


def test_the_tables_of_a_read_write_volume(story: Story) -> None:
    crypt, integrity = story["rw.tables"]["ok"]
    assert "capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:parma:" in crypt
    assert " 2 integrity:32:aead sector_size:4096" in crypt
    assert " 0 32 J " in integrity


def test_a_changed_superblock_is_refused(story: Story) -> None:
    assert "integrity superblock" in story.refused("rw.superblock_changed", "DataLossError")


def test_a_superblock_set_to_zero_costs_the_journal_only(story: Story) -> None:
    assert with_lost_and_found(story, "rw.superblock_zeroed").keys() >= FILES.keys()


@pytest.mark.parametrize("name", ["rw.flipped", "rw.swapped"])
def test_what_the_host_changes_is_an_io_error(story: Story, name: str) -> None:
    found = with_lost_and_found(story, name)
    assert found.pop("big")["errno"] == EIO
    assert found["hello"] == whole_files()["hello"]


def test_what_the_host_puts_back_in_its_place_is_read(story: Story) -> None:
    """The same block with the same tag: nothing of freshness is promised for a read-write volume."""
    assert with_lost_and_found(story, "rw.restored")["big"] == whole_files()["big"]


def test_a_machine_that_dies_while_it_writes_leaves_no_unreadable_block(story: Story) -> None:
    """That is what the journal is for: a block and its tag are written both or neither."""
    assert story["crash.blocks"]["ok"] == story.keys["crash"].data_sectors * 512
    files = with_lost_and_found(story, "crash.files")
    assert files["synced"] == {"ok": story["crash.synced"]["digest"]}
    assert files["big"] == whole_files()["big"]
    assert all("ok" in row for row in files.values())
