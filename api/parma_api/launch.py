"""What a launch of the utility VM depends on: read by the shim, which launches it, and by the tenant, who measures it.

`SnpLaunch` holds every input of the SNP launch digest (reference/attestation.md 11) and the guest policy, and nothing
else. What differs between pods (memory, disks, network, HOST_DATA) is in the shim's `MachineConfig`.

`image.json` beside an image's files:

    {"format": 1, "variant": "stub", "kernel_version": "6.12...", "cmdline": "...",
     "files": {"vmlinux": {"sha256": "...", "size": 1}, "bzImage": {...}, "initrd": {...}, "root": {...}}}
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

from parma_api.status import DataLossError, FailedPreconditionError, InvalidArgumentError

Sha256Hex = NewType("Sha256Hex", str)

SNP_CPU_MODEL = "EPYC-v4"
"""QEMU's model name; its leaf 1 EAX enters each VMSA."""
SNP_GUEST_FEATURES = 0x1
"""SEV_FEATURES of the VMSA: SNPActive only, what upstream hosts (6.11 and newer) set."""
SNP_GUEST_POLICY = 0x30000
"""Bit 17 (reserved, one) and bit 16 (SMT allowed); no debug, no migration agent. SNP ABI, "guest policy"."""

FILE_NAMES = {
    "vmlinux": "vmlinux",
    "bzImage": "bzImage",
    "initrd": "initrd.img",
    "root": "root.img",
}
"""Key in image.json -> file beside it."""
MAX_DESCRIPTION = 1 << 20
MAX_CMDLINE = 2047
"""COMMAND_LINE_SIZE of x86 is 2048 with the final NUL."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class VmSize(enum.StrEnum):
    """Named sizes: few, because the count of vCPUs enters the measurement."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @property
    def vcpus(self) -> int:
        """How many vCPUs the name stands for."""
        return VCPUS[self]


VCPUS: Mapping[VmSize, int] = {VmSize.SMALL: 1, VmSize.MEDIUM: 2, VmSize.LARGE: 4}


class Variant(enum.StrEnum):
    """The two images; there is no run-time choice between them."""

    STUB = "stub"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A file and the digest that its bytes must have."""

    path: Path
    sha256: Sha256Hex
    size: int

    def check_size(self) -> None:
        """Raises FailedPreconditionError when the file is missing, DataLossError when its length differs."""
        try:
            actual = self.path.stat().st_size
        except OSError as error:
            raise FailedPreconditionError(
                f"file of the UVM image cannot be read: {self.path}: {error.strerror}; rebuild it with `make uvm`"
            ) from error
        if actual != self.size:
            raise DataLossError(
                f"{self.path} has {actual} bytes and image.json says {self.size}: rebuild it with `make uvm`"
            )

    def verify(self) -> None:
        """Reads the whole file. Raises as `check_size`, and DataLossError on another digest."""
        self.check_size()
        actual = sha256_of(self.path)
        if actual != self.sha256:
            raise DataLossError(
                f"{self.path} has SHA-256 {actual} and image.json says {self.sha256}"
            )


@dataclass(frozen=True, slots=True)
class UvmImage:
    """A utility VM image: kernel in both forms, initrd, root file system with its verity tree."""

    directory: Path
    variant: Variant
    kernel_version: str
    cmdline: str
    vmlinux: MeasuredFile
    bzimage: MeasuredFile
    initrd: MeasuredFile
    root: MeasuredFile

    @property
    def files(self) -> tuple[MeasuredFile, ...]:
        """All of them."""
        return (self.vmlinux, self.bzimage, self.initrd, self.root)


@dataclass(frozen=True, slots=True)
class SnpLaunch:
    """The inputs of the launch digest, in the order in which they enter it, and the guest policy."""

    firmware: MeasuredFile
    kernel: MeasuredFile
    initrd: MeasuredFile
    cmdline: str
    vcpus: int
    cpu_model: str = SNP_CPU_MODEL
    guest_features: int = SNP_GUEST_FEATURES
    policy: int = SNP_GUEST_POLICY


def snp_launch(image: UvmImage, firmware: Path, size: VmSize) -> SnpLaunch:
    """How the shim starts `image` under SNP with the AmdSev firmware at `firmware`.

    Raises FailedPreconditionError when the firmware cannot be read.
    """
    return SnpLaunch(
        firmware=measured_file(firmware),
        kernel=image.bzimage,
        initrd=image.initrd,
        cmdline=image.cmdline,
        vcpus=size.vcpus,
    )


def sha256_of(path: Path) -> Sha256Hex:
    """The digest of a whole file. Raises OSError."""
    with path.open("rb") as stream:
        return Sha256Hex(hashlib.file_digest(stream, "sha256").hexdigest())


def measured_file(path: Path) -> MeasuredFile:
    """`path` with the digest that it has now. Raises FailedPreconditionError."""
    try:
        return MeasuredFile(path, sha256_of(path), path.stat().st_size)
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be read: {error.strerror}") from error


def read_image(directory: Path) -> UvmImage:
    """The image in `directory`, with each file's size checked and its digest not (`MeasuredFile.verify` does that).

    Raises FailedPreconditionError (absent), InvalidArgumentError (malformed image.json), DataLossError (sizes).
    """
    description = directory / "image.json"
    try:
        with description.open("rb") as stream:
            text = stream.read(MAX_DESCRIPTION + 1)
    except OSError as error:
        raise FailedPreconditionError(
            f"no UVM image: {description}: {error.strerror}; build one with `make uvm`, or set PARMA_UVM"
        ) from error
    image = parse_image(directory, text)
    for file in image.files:
        file.check_size()
    return image


def parse_image(directory: Path, text: bytes) -> UvmImage:
    """`image.json`, read. Raises InvalidArgumentError."""
    if len(text) > MAX_DESCRIPTION:
        raise _malformed(f"more than {MAX_DESCRIPTION} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed("not JSON") from error
    if not isinstance(document, dict) or document.get("format") != 1:
        raise _malformed("format is not 1")
    files = document.get("files")
    if not isinstance(files, dict):
        raise _malformed("no object `files`")
    return UvmImage(
        directory=directory,
        variant=_variant(document.get("variant")),
        kernel_version=_text(document, "kernel_version", 256),
        cmdline=_text(document, "cmdline", MAX_CMDLINE),
        vmlinux=_file(directory, files, "vmlinux"),
        bzimage=_file(directory, files, "bzImage"),
        initrd=_file(directory, files, "initrd"),
        root=_file(directory, files, "root"),
    )


def _variant(value: object) -> Variant:
    try:
        return Variant(str(value))
    except ValueError as error:
        raise _malformed("variant is neither stub nor release") from error


def _text(document: Mapping[str, object], name: str, limit: int) -> str:
    value = document.get(name)
    if (
        not isinstance(value, str)
        or len(value) > limit
        or not value.isascii()
        or not value.isprintable()
    ):
        raise _malformed(f"{name} must be printable ASCII of at most {limit} characters")
    return value


def _file(directory: Path, files: Mapping[str, object], key: str) -> MeasuredFile:
    entry = files.get(key)
    if not isinstance(entry, dict):
        raise _malformed(f"no file {key}")
    digest, size = entry.get("sha256"), entry.get("size")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise _malformed(f"sha256 of {key} is not 64 hexadecimal digits")
    if type(size) is not int or size <= 0:
        raise _malformed(f"size of {key} is not a positive number")
    return MeasuredFile(directory / FILE_NAMES[key], Sha256Hex(digest), size)


def _malformed(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"image.json of the UVM image is malformed: {reason}")
