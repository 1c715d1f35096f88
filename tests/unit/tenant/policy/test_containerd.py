"""containerd's store, read from its folder: with pages made by hand, and with those of a real containerd."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from parma_tenant.image.boltdb import Bolt, _fnv
from parma_tenant.image.containerd import ContainerdSource, _varint
from parma_tenant.image.errors import ImageError, ImageMissingError
from parma_tenant.image.hashing import HashCache, hash_layers
from parma_tenant.image.reference import parse_reference
from tests.unit.tenant.policy.kit import NAME, Blobs, base_layer

PAGE = 4096
Tree = dict[bytes, "bytes | Tree"]


def leaf(tree: Tree) -> bytes:
    """A leaf page's content behind the page's id: nested buckets are inline."""
    elements, data = [], b""
    start = 16 + 16 * len(tree)
    for number, (key, value) in enumerate(sorted(tree.items())):
        content = value if isinstance(value, bytes) else struct.pack("<QQ", 0, 0) + leaf(value)
        position = start + len(data) - (16 + 16 * number)
        elements.append(
            struct.pack(
                "<IIII", int(not isinstance(value, bytes)), position, len(key), len(content)
            )
        )
        data += key + content
    return struct.pack("<QHHI", 0, 2, len(tree), 0) + b"".join(elements) + data


def meta(txid: int, root: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, 5, txid)
    return (struct.pack("<QHHI", 0, 4, 0, 0) + body + struct.pack("<Q", _fnv(body))).ljust(
        PAGE, b"\0"
    )


def database(tree: Tree) -> bytes:
    """Two metas, the older one with another root; a branch page over two leaves."""
    keys = sorted(tree)
    half = len(keys) // 2
    parts = [{key: tree[key] for key in keys[:half]}, {key: tree[key] for key in keys[half:]}]
    branch = struct.pack("<QHHI", 3, 1, 2, 0)
    names = [(part and min(part)) or b"" for part in parts]
    position = 32
    for number, name in enumerate(names):
        branch += struct.pack("<IIQ", position - 16 * number, len(name), 4 + number)
        position += len(name)
    branch += b"".join(names)
    pages = [leaf(part).ljust(PAGE, b"\0") for part in parts]
    assert all(len(page) == PAGE for page in pages)
    return meta(7, 3) + meta(6, 99) + bytes(PAGE) + branch.ljust(PAGE, b"\0") + b"".join(pages)


def store(root: Path, blobs: Blobs, digest: str, media_type: str) -> None:
    target: Tree = {
        b"digest": digest.encode(),
        b"mediatype": media_type.encode(),
        b"size": b"\xc8\x01",
    }
    tree: Tree = {b"v1": {b"k8s.io": {b"images": {NAME.encode(): {b"target": target}}}}, b"a": b"1"}
    path = root / "io.containerd.metadata.v1.bolt/meta.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(database(tree))
    for key, data in blobs.content.items():
        blob = root / "io.containerd.content.v1.content/blobs" / key.replace(":", "/")
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)


def test_an_image_of_the_store(tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image([base_layer()], Cmd=["x"])
    data = blobs.content.pop(str(image["digest"]))
    blobs.content[str(image["digest"])] = data
    store(tmp_path, blobs, str(image["digest"]), str(image["mediaType"]))
    (size,) = struct.unpack("<q", struct.pack("<q", len(data)))
    encoded = bytes([size * 2 & 0x7F | 0x80, size * 2 >> 7 & 0x7F])
    path = tmp_path / "io.containerd.metadata.v1.bolt/meta.db"
    path.write_bytes(path.read_bytes().replace(b"\xc8\x01", encoded))
    source = ContainerdSource(tmp_path)
    found = source.find(parse_reference("app:1"))
    assert found is not None
    assert found.config.cmd == ("x",)
    assert len(hash_layers(found.layers, HashCache(tmp_path / "cache"))) == 1
    assert source.find(parse_reference("other:1")) is None
    for blob in (tmp_path / "io.containerd.content.v1.content").rglob("*"):
        if blob.is_file():
            blob.unlink()
    with pytest.raises(ImageMissingError, match="pull the image again"):
        source.find(parse_reference("app:1"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 20000,
        meta(1, 999).ljust(2 * PAGE, b"\0"),
        meta(1, 0).ljust(2 * PAGE, b"\0"),
        database({b"a": b"1"})[: 4 * PAGE],
    ],
)
def test_damaged_databases(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        Bolt(path).bucket(b"v1")


def test_a_page_that_holds_itself(tmp_path: Path) -> None:
    branch = struct.pack("<QHHI", 3, 1, 1, 0) + struct.pack("<IIQ", 16, 0, 3)
    path = tmp_path / "meta.db"
    path.write_bytes(meta(1, 3) + bytes(2 * PAGE) + branch.ljust(PAGE, b"\0"))
    with pytest.raises(ImageError, match="damaged"):
        Bolt(path).bucket()


@pytest.mark.parametrize(
    ("data", "value"), [(b"\x00", 0), (b"\x02", 1), (b"\x01", -1), (b"\xc8\x01", 100), (b"", 0)]
)
def test_varint(data: bytes, value: int) -> None:
    assert _varint(data) == value
