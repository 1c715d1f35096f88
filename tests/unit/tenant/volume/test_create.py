"""Blobs made in user space, taken apart again without the code that made them. The kernel's own verdict: tests/vm."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from parma_api.block.integrity import BLOCK, TAG_BYTES
from parma_api.block.tables import tree_blocks
from parma_api.status import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError
from parma_tenant.volume import filesystem
from parma_tenant.volume.create import create_read_only, create_read_write
from parma_tenant.volume.filesystem import VolumeContentError
from parma_tenant.volume.key import VolumeKey

CANARY = b"canary: text in clear".ljust(64, b".") * 500
SIZE = 16 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "canary").write_bytes(CANARY)
    (made / "sub/file").write_bytes(b"x" * 5000)
    (made / "link").symlink_to("sub/file")
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plain(key: VolumeKey, block: int, sealed: bytes) -> bytes:
    tweak = (block * 8).to_bytes(16, "little")
    cipher = Cipher(algorithms.AES(bytes(key.cipher_key()[:64])), modes.XTS(tweak))
    return cipher.decryptor().update(sealed)


def read_file(image: Path, name: str) -> bytes:
    """Out of an ext4 image, by e2fsprogs."""
    done = subprocess.run(
        ["/usr/sbin/debugfs", "-R", f"cat {name}", str(image)], capture_output=True, check=True
    )
    return done.stdout


def test_a_read_only_blob(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "blob"
    seen: list[tuple[int, int]] = []
    key = create_read_only(folder, out, lambda *state: seen.append(state))
    blob = out.read_bytes()
    assert len(blob) == key.blob_size == (key.blocks + 1 + tree_blocks(key.blocks)) * BLOCK
    assert CANARY[:64] not in blob
    image = tmp_path / "image"
    blocks = (blob[at * BLOCK : (at + 1) * BLOCK] for at in range(key.blocks))
    image.write_bytes(b"".join(plain(key, n, one) for n, one in enumerate(blocks)))
    assert read_file(image, "canary") == CANARY
    assert read_file(image, "sub/file") == b"x" * 5000
    assert seen[-1] == (key.blob_size, key.blob_size)
    assert names(tmp_path) == ["blob", "folder", "image"], "no plaintext is left"


def test_its_root_is_over_the_ciphertext(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "blob"
    key = create_read_only(folder, out)
    program = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin")
    assert program, "veritysetup is missing: run `make env`"
    command = [program, "verify", out, out, str(key.root), f"--hash-offset={key.blocks * BLOCK}"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with out.open("r+b") as stream:
        stream.seek(BLOCK + 5)
        byte = stream.read(1)
        stream.seek(BLOCK + 5)
        stream.write(bytes([byte[0] ^ 1]))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_two_volumes_of_one_folder_have_nothing_in_common(folder: Path, tmp_path: Path) -> None:
    one, two = (create_read_only(folder, tmp_path / name) for name in ("one", "two"))
    assert one.secret != two.secret
    assert one.root != two.root
    first, second = ((tmp_path / name).read_bytes() for name in ("one", "two"))
    data = range(0, one.blocks * BLOCK, BLOCK)
    assert not [at for at in data if first[at : at + BLOCK] == second[at : at + BLOCK]]


@pytest.mark.parametrize("with_files", [True, False])
def test_a_read_write_blob(folder: Path, tmp_path: Path, with_files: bool) -> None:
    out = tmp_path / "blob"
    key = create_read_write(folder if with_files else None, SIZE, out)
    blob, layout = out.read_bytes(), key.layout
    assert len(blob) == SIZE
    assert not any(blob[: layout.initial]), "superblock and journal are the kernel's to write"
    mac = bytes(key.cipher_key()[64:])
    image = tmp_path / "image"
    with image.open("wb") as plaintext:
        for block in range(layout.blocks):
            sealed = blob[(at := layout.data_at(block)) : at + BLOCK]
            number = (block * 8).to_bytes(8, "little")
            text = number + number + bytes(8) + sealed
            tag = hmac.digest(mac, text, hashlib.sha256)
            at = layout.tag_at(block)
            assert blob[at : at + TAG_BYTES] == tag
            plaintext.write(plain(key, block, sealed))
    if with_files:
        assert read_file(image, "canary") == CANARY
    check = ["/usr/sbin/e2fsck", "-f", "-n", str(image)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    assert names(tmp_path) == ["blob", "folder", "image"]


def test_what_is_there_stays(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "blob"
    out.write_text("precious")
    with pytest.raises(AlreadyExistsError):
        create_read_only(folder, out)
    assert out.read_text() == "precious"


def test_a_failure_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "blob"
    with pytest.raises(VolumeContentError, match="is no folder"):
        create_read_only(tmp_path / "absent", out)
    (folder / "large").write_bytes(os.urandom(SIZE))
    with pytest.raises(VolumeContentError, match="larger --size"):
        create_read_write(folder, SIZE, out)
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("size", [0, SIZE - BLOCK, SIZE + 1, 1 << 60])
def test_sizes_that_cannot_be(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="16 MiB to 16 TiB"):
        create_read_write(None, size, tmp_path / "blob")
    assert names(tmp_path) == []


def test_without_e2fsprogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPreconditionError, match="install e2fsprogs"):
        create_read_write(None, SIZE, tmp_path / "blob")
    assert names(tmp_path) == []
