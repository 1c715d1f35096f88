"""The host's side of the storage story: disks, the VM, and what the host does while it runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.layer_images import BLOCK, ext4_image, with_verity

COUNT = 127
HOT = 250
"""LUNs from here on are plugged in while the guest runs."""
BIG = b"big file, block %08d\n".ljust(64, b".")
CANARY = b"canary-in-clear-text"


def big_file() -> bytes:
    return b"".join(BIG % number for number in range(4096))


@dataclass
class Disks:
    """Image files by LUN, and the roots that they should claim."""

    folder: Path
    files: dict[int, Path] = field(default_factory=dict)
    roots: dict[int, str] = field(default_factory=dict)

    def add(self, lun: int, data: bytes, root: str = "") -> Path:
        path = self.folder / f"lun{lun}.img"
        path.write_bytes(data)
        self.files[lun] = path
        self.roots[lun] = root
        return path


def make_disks(folder: Path) -> Disks:
    """LUN 0 scratch; 1, 2 layers; 3 to 6 and 8 tampered with; 7 a copy of 1; 10 on many small ones."""
    disks = Disks(folder)
    scratch = disks.add(0, b"")
    with scratch.open("r+b") as file:
        file.truncate(2 << 30)
    base = ext4_image(
        folder / "base",
        {"hello": b"from the base", "who": b"base", "gone": b"x", "big": big_file()},
    )
    top = ext4_image(folder / "top", {"who": b"top", "gone!": b"", "big": big_file()})
    whole, root = with_verity(base)
    disks.add(1, whole, root)
    disks.add(2, *with_verity(top))
    disks.add(7, whole, root)
    disks.add(3, tampered_data(whole), root)
    superblock = bytearray(whole)
    superblock[len(base) + 80] = 31  # salt size
    disks.add(4, bytes(superblock))
    disks.add(5, shortened(base))
    tree = bytearray(whole)
    tree[len(base) + BLOCK] ^= 1  # in the top block: another root is claimed
    disks.add(6, bytes(tree))
    disks.add(8, cut(whole, len(base), 8), root)
    disks.add(HOT, *with_verity(top))
    disks.add(HOT + 1, whole, root)
    for number in range(COUNT):
        files = {"top": b"%d" % number, f"only-{number}": b""}
        disks.add(10 + number, *with_verity(ext4_image(folder / f"many{number}", files)))
    return disks


def tampered_data(whole: bytes) -> bytes:
    """One bit of the big file flipped."""
    at = whole.index(BIG % 2048)
    data = bytearray(whole)
    data[at] ^= 1
    return bytes(data)


def cut(whole: bytes, size: int, blocks: int) -> bytes:
    """The last blocks left out and the unchanged tree moved up: the root stays the same (storage.md 3)."""
    return whole[: size - blocks * BLOCK] + whole[size:]


def shortened(base: bytes) -> bytes:
    """An image whose superblock claims fewer blocks, with verity data to match the shorter image: another root,
    and the file system's own blocks beyond the end."""
    data = bytearray(base)
    blocks = int.from_bytes(data[1028:1032], "little")
    data[1028:1032] = (blocks - 8).to_bytes(4, "little")
    whole, _ = with_verity(base)  # tree and superblock of the longer image: the places do not fit
    return bytes(data) + whole[len(base) :]


def drive_arguments(disks: Disks) -> list[str]:
    """QEMU's switches for the disks."""
    words = ["-device", "virtio-scsi-pci,id=scsi0"]
    words += ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56"]
    words += ["-monitor", f"unix:{disks.folder / 'monitor'},server=on,wait=off"]
    for lun, path in sorted(disks.files.items()):
        mode = "" if lun == 0 else ",read-only=on"
        words += [
            "-drive",
            f"if=none,id=d{lun},file={path},format=raw{mode}",
        ]
        if lun < HOT:
            words += ["-device", f"scsi-hd,bus=scsi0.0,scsi-id=0,lun={lun},drive=d{lun}"]
    return words


def flip(path: Path, at: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def flip_scratch(path: Path) -> None:
    """Flip a bit in every 64 KiB of the part that holds data: some of it is the file that is read next."""
    with path.open("r+b") as file:
        at = 0
        while at < 2 << 30:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            if at > 1 << 20:
                byte = os.pread(file.fileno(), 1, at + 100)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), at + 100)
            at += 65536


def serve(word: str, disks: Disks) -> None:
    """What the guest asks the malicious host to do."""
    if word == "plug":
        monitor(disks, "device_add scsi-hd,bus=scsi0.0,scsi-id=0,lun=250,drive=d250,id=hot")
    elif word == "unplug":
        monitor(disks, "device_del hot")
    elif word == "swap":
        monitor(disks, "device_add scsi-hd,bus=scsi0.0,scsi-id=0,lun=250,drive=d251,id=hot2")
    elif word == "flip-scratch":
        flip_scratch(disks.files[0])
    elif word == "flip-layer":
        path = disks.files[2]
        flip(path, path.read_bytes().index(BIG % 1000))
    else:
        raise AssertionError(word)


def monitor(disks: Disks, command: str) -> None:
    """Say one line to QEMU's monitor and wait for the next prompt."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(disks.folder / "monitor"))
        answer = b""
        for text in ("", command + "\n"):
            line.sendall(text.encode())
            answer = b""
            while not answer.endswith(b"(qemu) "):
                answer += line.recv(4096)
    assert b"Error" not in answer, answer


def play(arguments: Sequence[str], disks: Disks, log: Path) -> dict[str, dict[str, object]]:
    """Run the VM to its end; its steps by name."""
    steps: dict[str, dict[str, object]] = {}
    with (
        subprocess.Popen(
            [*arguments, *drive_arguments(disks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as machine,
        log.open("wb") as copy,
    ):
        assert machine.stdin is not None
        assert machine.stdout is not None
        for line in machine.stdout:
            copy.write(line)
            copy.flush()
            text = line.decode(errors="replace").strip()
            if text.startswith("HOST "):
                serve(text.removeprefix("HOST "), disks)
                machine.stdin.write(b"done\n")
                machine.stdin.flush()
            elif '{"step"' in text:
                # The kernel may write to the same console at any moment, behind our text too.
                step, _ = json.JSONDecoder().raw_decode(text, text.index('{"step"'))
                steps[step.pop("step")] = step
        machine.wait(timeout=60)
    return steps
