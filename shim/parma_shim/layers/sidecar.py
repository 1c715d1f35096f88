"""What is known of a cached image, in a small JSON file beside it, and the cheap proof that the two belong together.

A hit must not cost another hash of the image. So only this is compared: sizes, the verity superblock, and the
tree's top block, of which the root hash is the digest. The rest is the guest's to check: it does, on every read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields

from parma_api.block.tables import tree_blocks
from parma_api.ids import DiffId, RootHash, parse_root_hash
from parma_api.layer import FORMAT_VERSION, LayerImage
from parma_api.layer.verity import BLOCK_SIZE, root_of, superblock
from parma_api.status import DataLossError, InvalidArgumentError

MAX_SIDECAR = 4096


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A `LayerImage` of this format version without the digests that nobody needs here; sizes in bytes."""

    version: int
    diff_id: DiffId
    root_hash: RootHash
    data_blocks: int
    image_size: int
    file_size: int

    def encode(self) -> bytes:
        """As it lies on disk."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def describe(image: LayerImage) -> Sidecar:
    """The sidecar of a fresh image."""
    return Sidecar(
        FORMAT_VERSION,
        image.diff_id,
        image.root_hash,
        image.data_blocks,
        image.image_size,
        image.file_size,
    )


def parse_sidecar(data: bytes, diff_id: DiffId) -> Sidecar:
    """The sidecar of the layer `diff_id`. Raises DataLossError for anything that `encode` would not have written."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataLossError("the layer's sidecar is no JSON") from error
    names = [field.name for field in fields(Sidecar)]
    if not isinstance(values, dict) or list(values) != names:
        raise DataLossError("the layer's sidecar has other fields")
    if not all(type(values[name]) is int for name in (*names[3:], "version")):
        raise DataLossError("the layer's sidecar holds something that is no number")
    sidecar = Sidecar(**values)
    try:
        parse_root_hash(str(sidecar.root_hash))
    except InvalidArgumentError as error:
        raise DataLossError("the layer's sidecar holds no root hash") from error
    if sidecar.version != FORMAT_VERSION or sidecar.diff_id != diff_id:
        raise DataLossError("the layer's sidecar is another layer's or another version's")
    return sidecar


def check_image(fd: int, sidecar: Sidecar) -> None:
    """Raises DataLossError unless the file can be the image that the sidecar describes; OSError if it is unreadable."""
    blocks = sidecar.data_blocks
    expected = (1 + blocks + tree_blocks(blocks)) * BLOCK_SIZE if blocks > 1 else -1
    if sidecar.image_size != blocks * BLOCK_SIZE or sidecar.file_size != expected:
        raise DataLossError("the layer's sidecar holds sizes that do not fit each other")
    if os.fstat(fd).st_size != sidecar.file_size:
        raise DataLossError("the layer's image has another size than its sidecar says")
    ends = os.pread(fd, 2 * BLOCK_SIZE, sidecar.image_size)
    if ends[:BLOCK_SIZE] != superblock(blocks).ljust(BLOCK_SIZE, b"\0"):
        raise DataLossError("the layer's image has another verity superblock")
    if root_of(ends[BLOCK_SIZE:]) != sidecar.root_hash:
        raise DataLossError("the layer's image has another root hash than its sidecar says")
