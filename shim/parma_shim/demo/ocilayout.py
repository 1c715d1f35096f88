"""Writes small OCI images, byte for byte the same for the same input (OCI image-spec 1.1, image layout)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tar entry of a layer: exactly one of `content`, `link`, or neither (a directory)."""

    path: str
    mode: int = 0o755
    content: bytes | None = None
    link: str | None = None
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The part of the image configuration that decides how a container runs."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    working_dir: str = "/"
    user: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its name, uncompressed layer tars (base first) and configuration."""

    name: str
    layers: tuple[bytes, ...]
    config: ImageConfig = field(default_factory=ImageConfig)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the uncompressed layers."""
        return tuple("sha256:" + hashlib.sha256(tar).hexdigest() for tar in self.layers)


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """An uncompressed layer tar (GNU format, all times 0)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                tar.addfile(info)
            elif entry.content is not None:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
            else:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
    return out.getvalue()


def write_archive(images: Sequence[Image], path: Path) -> None:
    """Writes an OCI layout as a tar that `ctr images import` takes."""
    blobs: dict[str, bytes] = {}
    manifests = [_manifest(image, blobs) for image in images]
    index = {"schemaVersion": 2, "manifests": manifests}
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    temporary = path.with_suffix(".part")
    temporary.write_bytes(layer_tar(Entry(name, 0o644, data) for name, data in files.items()))
    temporary.rename(path)


def _manifest(image: Image, blobs: dict[str, bytes]) -> dict[str, object]:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Env": list(image.config.env),
            "Entrypoint": list(image.config.entrypoint) or None,
            "Cmd": list(image.config.cmd) or None,
            "WorkingDir": image.config.working_dir,
            "User": image.config.user,
        },
        "rootfs": {"type": "layers", "diff_ids": list(image.diff_ids)},
        "history": [{"created": _CREATED} for _ in image.layers],
    }
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _put(blobs, CONFIG, json.dumps(config).encode()),
        "layers": [_put(blobs, LAYER, gzip.compress(tar, 6, mtime=0)) for tar in image.layers],
    }
    descriptor = _put(blobs, MANIFEST, json.dumps(body).encode())
    descriptor["annotations"] = {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
    }
    return descriptor


def _put(blobs: dict[str, bytes], media_type: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
