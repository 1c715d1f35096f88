"""The image's blocks in the order of their numbers: hashed, and handed to the output in large pieces.

Blocks 0 to 8 are known last and attribute blocks can change late; everything else is written once.
"""

from __future__ import annotations

from parma_api.layer.errors import DiskFullError
from parma_api.layer.output import Output
from parma_api.layer.scratch import Scratch
from parma_api.layer.verity import BLOCK_SIZE, VerityTree

_FLUSH_AT = 1 << 20
_COPY_BELOW = 1 << 16
"""A shorter piece is copied: it would keep the whole chunk of the stream that it is a part of in memory."""
_KEPT_IN_MEMORY = 4 << 20


class BlockImage:
    """Appends at `cursor` (a block number); all sizes in bytes unless said otherwise."""

    def __init__(self, output: Output, tree: VerityTree, max_blocks: int) -> None:
        self._output = output
        self._tree = tree
        self._max_blocks = max_blocks
        self._pieces: list[bytes | memoryview] = []
        self._pending = 0
        self._part = bytearray()
        self._kept = Scratch(_KEPT_IN_MEMORY)
        self._kept_at: dict[int, int] = {}
        self.cursor = 0

    def require(self, blocks: int) -> None:
        """Raises DiskFullError unless there is room for so many more blocks."""
        if self.cursor + blocks > self._max_blocks:
            raise DiskFullError(
                f"the image would have more than {self._max_blocks * BLOCK_SIZE} bytes"
            )

    def write(self, data: bytes | memoryview) -> None:
        """Appends to the run of blocks that is being written; its last block may stay open."""
        view = memoryview(data)
        if self._part:
            missing = BLOCK_SIZE - len(self._part)
            self._part += view[:missing]
            view = view[missing:]
            if len(self._part) < BLOCK_SIZE:
                return
            self._append(memoryview(bytes(self._part)))
            self._part.clear()
        whole = len(view) & -BLOCK_SIZE
        if whole:
            self._append(view[:whole])
        self._part += view[whole:]

    def zeros(self, size: int) -> None:
        """Appends zero bytes to the run."""
        if self._part:
            part = min(size, BLOCK_SIZE - len(self._part))
            self.write(bytes(part))
            size -= part
        if blocks := size // BLOCK_SIZE:
            self.zero_blocks(blocks)
        self._part += bytes(size % BLOCK_SIZE)

    def zero_blocks(self, count: int) -> None:
        """Appends zero blocks, as a hole."""
        self.require(count)
        self._flush()
        self._tree.add_zeros(count)
        self.cursor += count

    def end_run(self) -> None:
        """Fills the open block up with zeros."""
        if self._part:
            self._append(memoryview(bytes(self._part.ljust(BLOCK_SIZE, b"\0"))))
            self._part.clear()

    def keep(self, block: bytes) -> int:
        """Appends a block that `kept` and `replace_kept` can reach later. Result: its number."""
        number = self.cursor
        self._kept_at[number] = self._kept.append(block)
        self._append(memoryview(block))
        return number

    def kept(self, number: int) -> bytes:
        """The block's present content."""
        return self._kept.read(self._kept_at[number], BLOCK_SIZE)

    def replace_kept(self, number: int, block: bytes) -> None:
        """Other content for a block that was kept."""
        self._kept.write(self._kept_at[number], block)
        self.replace(number, block)

    def replace(self, number: int, blocks: bytes) -> None:
        """Other content for blocks that were written."""
        self._flush()
        self._tree.replace(number, memoryview(blocks))
        self._output.write(number * BLOCK_SIZE, [blocks])

    def finish(self) -> None:
        """Everything is with the output."""
        self._flush()

    def close(self) -> None:
        """Frees what was kept."""
        self._kept.close()

    def _append(self, view: memoryview) -> None:
        count = len(view) // BLOCK_SIZE
        self.require(count)
        self._tree.add(view)
        self._pieces.append(bytes(view) if len(view) < _COPY_BELOW else view)
        self._pending += len(view)
        self.cursor += count
        if self._pending >= _FLUSH_AT:
            self._flush()

    def _flush(self) -> None:
        if self._pieces:
            self._output.write(self.cursor * BLOCK_SIZE - self._pending, self._pieces)
            self._pieces = []
            self._pending = 0
