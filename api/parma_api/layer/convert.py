"""A layer's tar to its ext4 image with dm-verity tree, in one pass and without root.

The image is a function of the uncompressed tar's bytes alone: no clock, no locale, no host enters it. Its root hash is
the one that policies name, so it must equal, bit for bit, what other tools of the field compute for the same tar.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from parma_api.block.tables import tree_blocks
from parma_api.ids import DiffId, RootHash
from parma_api.layer.builder import ImageBuilder
from parma_api.layer.compression import Input, unpack
from parma_api.layer.groups import MAX_IMAGE
from parma_api.layer.image import BlockImage
from parma_api.layer.output import FileOutput, NoOutput, Output, replacing
from parma_api.layer.prefetch import Prefetch
from parma_api.layer.source import ChunkSource
from parma_api.layer.tar import TarReader
from parma_api.layer.verity import BLOCK_SIZE, ZERO_BLOCK, VerityTree, superblock

FORMAT_VERSION = 1
"""Part of every cache's key: rises when the same tar gives other bytes."""


class Digests(enum.Enum):
    """Which digests to compute. The file's own cost one more pass over it, and the shim needs none of them."""

    ROOT = "root"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layer may ask for: a tar of a few kilobytes can stand for terabytes. Beyond them: E_DISK_FULL."""

    image_bytes: int = MAX_IMAGE
    """Of the ext4 part; the format's own limit is 128 GiB."""
    inodes: int = 1 << 22
    """Each takes 256 bytes of memory, and about as much for its name; the format's own limit is 2^24."""
    tar_bytes: int = 2 * MAX_IMAGE
    """Of the uncompressed tar, rubbish behind the end mark included."""


@dataclass(frozen=True, slots=True)
class LayerImage:
    """What came out. Sizes in bytes: `image_*` the ext4 part, `file_*` the whole with its verity tree."""

    root_hash: RootHash
    data_blocks: int
    image_size: int
    image_sha256: str | None
    """None, as `file_sha256`, unless Digests.ALL was asked for and there is a file."""
    file_size: int
    file_sha256: str | None
    diff_id: DiffId
    """Of the tar that was converted."""


def convert(
    reader: BinaryIO,
    out: Path | int | None,
    *,
    limits: Limits = Limits(),
    digests: Digests = Digests.ALL,
    progress: Callable[[int], None] = lambda _read: None,
) -> LayerImage:
    """Converts the layer that `reader` gives (tar, tar.gz, tar.zst) to its image in `out`.

    `out` is a path, which is replaced when all is done and is gone after a failure; or the descriptor of an empty
    file, open for reading and writing, which is empty again after a failure; or None: only hashes are computed, and
    at most a 128th of the image goes to a temporary file. `progress` is called with the bytes read so far, in another
    thread. The reader is read to its end, since the diff id covers what is behind the tar's end mark too.

    Raises LayerError subclasses for the layer's faults, LayerReadError and LayerWriteError for the machine's, and what
    the reader raises.
    """
    source = Input(reader, progress)
    if out is None:
        return _convert(source, NoOutput(), limits)
    with ExitStack() as stack:
        fd = stack.enter_context(replacing(out)) if isinstance(out, Path) else out
        output = FileOutput(fd)
        stack.push(lambda kind, _error, _trace: _empty(output, kind))
        return _convert(source, output, limits, output if digests is Digests.ALL else None)


def _empty(output: FileOutput, kind: type[BaseException] | None) -> None:
    if kind is not None:
        output.finish(0)


def _convert(
    source: Input, output: Output, limits: Limits, readable: FileOutput | None = None
) -> LayerImage:
    """`readable` is the output again if its digests are wanted."""
    with ExitStack() as stack:
        tree = VerityTree()
        stack.callback(tree.close)
        max_blocks = min(limits.image_bytes, MAX_IMAGE) // BLOCK_SIZE
        image = BlockImage(output, tree, max_blocks)
        stack.callback(image.close)
        ahead = stack.enter_context(Prefetch(unpack(source), limits.tar_bytes))
        chunks = ChunkSource(ahead.chunks())
        builder = ImageBuilder(image, limits.inodes)
        builder.add_all(TarReader(chunks))
        chunks.drain()
        blocks = builder.finish()
        root = tree.finish()
        _write_tree(output, tree)
        image_size = blocks * BLOCK_SIZE
        file_size = image_size + (1 + tree_blocks(blocks)) * BLOCK_SIZE
        output.finish(file_size)
        part, whole = readable.digests([image_size, file_size]) if readable else (None, None)
        return LayerImage(root, blocks, image_size, part, file_size, whole, ahead.diff_id)


def _write_tree(output: Output, tree: VerityTree) -> None:
    """The verity superblock behind the image, then the levels, top first."""
    at = tree.blocks * BLOCK_SIZE
    output.write(at, [superblock(tree.blocks).ljust(len(ZERO_BLOCK), b"\0")])
    at += BLOCK_SIZE
    for piece in tree.levels():
        output.write(at, [piece])
        at += len(piece)
