"""A folder as an OCI image archive of one layer, streamed: `ctr images import` and `kind load` take it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from parma_shim.demo.ocilayout import CONFIG, LAYER, MANIFEST

_FOLDERS = ("etc", "host", "proc", "sys", "dev", "run", "tmp", "var")
_CREATED = "2026-01-01T00:00:00Z"
_LEVEL = 1
"""Of gzip: the payload's largest part is compressed already."""


def write_image(root: Path, name: str, version: str, archive: Path) -> None:
    """Writes the image `name` with the content of `root`; its program is the payload's parma-node."""
    layer = archive.with_suffix(".layer")
    part = archive.with_suffix(".part")
    try:
        diff_id = _write_layer(root, version, layer)
        _write_archive(layer, diff_id, name, part)
        part.rename(archive)
    finally:
        layer.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def _write_layer(root: Path, version: str, layer: Path) -> str:
    """The compressed layer; result: the digest of the uncompressed one."""
    with layer.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        plain = _Digesting(packed)
        _write_tar(root, version, plain)
    return "sha256:" + plain.digest.hexdigest()


def _write_tar(root: Path, version: str, target: _Digesting) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for folder in _FOLDERS:
            tar.addfile(_normal(tarfile.TarInfo(folder), tarfile.DIRTYPE, 0o755))
        link = _normal(tarfile.TarInfo("parma-node"), tarfile.SYMTYPE, 0o777)
        link.linkname = f"/opt/parma/versions/{version}/bin/parma-node"
        tar.addfile(link)
        for path in sorted(root.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(root)))
            _normal(info, info.type, info.mode)
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)


class _Digesting:
    """A file that takes bytes, counts them into a digest and hands them on."""

    def __init__(self, target: gzip.GzipFile) -> None:
        self.target = target
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.target.write(data)


def _normal(info: tarfile.TarInfo, kind: bytes, mode: int) -> tarfile.TarInfo:
    info.type, info.mode, info.mtime = kind, mode & 0o777, 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _write_archive(layer: Path, diff_id: str, name: str, archive: Path) -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": {"Entrypoint": ["/parma-node"], "Cmd": ["serve"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": _CREATED}],
    }
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_blob(tar, f"blobs/sha256/{digest}", layer)
        layers = [_descriptor(LAYER, digest, layer.stat().st_size)]
        text = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _add_text(tar, CONFIG, text),
            "layers": layers,
        }
        described = _add_text(tar, MANIFEST, json.dumps(manifest).encode())
        described["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _add_text(tar: tarfile.TarFile, media_type: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    _add(tar, f"blobs/sha256/{digest}", data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_blob(tar: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(info, file)
