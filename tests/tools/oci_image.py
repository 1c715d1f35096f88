"""OCI images of a few bytes, as archives that `ctr images import` takes, with any part replaced by something bad."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer_tar(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def digest(data: bytes) -> str:
    """sha256:..."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Image:
    """Layers base first, and the documents around them."""

    layers: list[bytes]
    architecture: str = "amd64"
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, media_type: str, data: bytes) -> dict[str, object]:
        """Stores a blob; result: its descriptor."""
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def write(self, path: Path, name: str) -> Path:
        """The archive."""
        blobs = [self.add(LAYER, gzip.compress(tar, mtime=0)) for tar in self.layers]
        config = {
            "os": "linux",
            "architecture": self.architecture,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in self.layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(CONFIG, json.dumps(config).encode()),
            "layers": blobs,
        }
        target = self.add(MANIFEST, json.dumps(manifest).encode())
        target["annotations"] = {"io.containerd.image.name": name}
        target["platform"] = {"os": "linux", "architecture": self.architecture}
        with tarfile.open(path, "w") as archive:
            _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _put(
                archive,
                "index.json",
                json.dumps({"schemaVersion": 2, "manifests": [target]}).encode(),
            )
            for key, data in self.blobs.items():
                _put(archive, "blobs/" + key.replace(":", "/"), data)
        return path


def _put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
