"""From a layer's tar stream to an image file with its verity tree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from parma_api.ids import RootHash
from parma_api.layer import image, verity
from parma_api.layer.header import Entry
from parma_api.layer.tarstream import TarStream
from parma_api.layer.tree import (
    S_BLOCK,
    S_CHAR,
    S_DIR,
    S_FIFO,
    S_FILE,
    S_LINK,
    Attributes,
    Tree,
    clean,
    encode_time,
)

_KINDS = {b"2": S_LINK, b"3": S_CHAR, b"4": S_BLOCK, b"5": S_DIR, b"6": S_FIFO}
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LayerImage:
    """The result; sizes in bytes, digests hexadecimal. `file_*` is image, superblock and tree."""

    root_hash: RootHash
    data_blocks: int
    image_size: int
    image_sha256: str
    file_size: int
    file_sha256: str


def convert(
    tar: BinaryIO, target: Path, progress: Callable[[int], None] = lambda _: None
) -> LayerImage:
    """Writes the image of an uncompressed layer tar; nothing is left when it fails. Raises LayerError."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("w+b") as out:
            result = _convert(tar, out, progress)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return result


def _convert(tar: BinaryIO, out: BinaryIO, progress: Callable[[int], None]) -> LayerImage:
    tree = Tree(out)
    stream = TarStream(tar)
    for entry in stream.entries():
        _add(tree, stream, entry)
        progress(tree.cursor * verity.BLOCK)
    blocks = image.finish(tree)
    out.seek(0)
    whole = hashlib.sha256()
    levels = verity.levels(verity.leaves_of(out, blocks, whole))
    image_sha256 = whole.hexdigest()
    out.seek(blocks * verity.BLOCK)
    for piece in (verity.superblock(blocks), *reversed(levels)):
        out.write(piece)
        whole.update(piece)
    root = RootHash(verity.root_hash(levels))
    size = blocks * verity.BLOCK
    return LayerImage(root, blocks, size, image_sha256, out.tell(), whole.hexdigest())


def _add(tree: Tree, stream: TarStream, entry: Entry) -> None:
    path = clean(entry.name)
    tree.implied_parents(path)
    folder, _, base = entry.name.rpartition(b"/")
    if base.startswith(_WHITEOUT):
        if base == _OPAQUE:
            tree.opaque(clean(folder))
        else:
            tree.create(clean(folder + b"/" + base[len(_WHITEOUT) :]), Attributes(S_CHAR))
    elif entry.flag == b"1":
        tree.link(path, clean(entry.link))
    else:
        kind = _KINDS.get(entry.flag, S_FILE)
        atime, ctime, mtime = (
            encode_time(time) for time in (entry.atime, entry.ctime, entry.mtime)
        )
        attributes = Attributes(
            mode=kind | (entry.mode & 0o7777),
            uid=entry.uid & _LOW,
            gid=entry.gid & _LOW,
            times=(atime, ctime, mtime, mtime),
            xattrs=entry.xattrs,
            size=entry.size if kind == S_FILE else 0,
            target=entry.link if kind == S_LINK else b"",
            device=(entry.major & _LOW, entry.minor & _LOW),
        )
        tree.create(path, attributes, stream.data(entry))
        if kind == S_FILE and not entry.size:
            for _ in stream.data(entry):
                pass
