"""TCB_VERSION: eight bytes of security patch levels, in two layouts that cannot be compared with each other.

Milan, Genoa   bootloader tee 0 0 0 0 snp microcode
Turin          fmc bootloader tee snp 0 0 0 microcode
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parma_api.snp.product import TcbLayout
from parma_api.status import InvalidArgumentError

SIZE: Final = 8
POSITIONS: Final[dict[TcbLayout, dict[str, int]]] = {
    TcbLayout.MILAN: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    TcbLayout.TURIN: {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}
"""Component to its byte."""


class TcbError(InvalidArgumentError):
    """Bytes that are no TCB of that layout, or TCBs that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Tcb:
    """Patch levels, 0 to 255; `fmc` exists in Turin's layout only."""

    layout: TcbLayout
    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def __post_init__(self) -> None:
        if (self.fmc is None) is (self.layout is TcbLayout.TURIN):
            raise TcbError(f"fmc belongs to Turin's TCB and to no other: {self}")
        if any(not 0 <= value <= 0xFF for value in self.components().values()):
            raise TcbError(f"a patch level is a byte: {self}")

    def components(self) -> dict[str, int]:
        """The levels by name, in the order of the bytes."""
        values = {name: getattr(self, name) for name in POSITIONS[self.layout]}
        return {name: value for name, value in values.items() if value is not None}

    def to_bytes(self) -> bytes:
        """As in a report."""
        raw = bytearray(SIZE)
        for name, value in self.components().items():
            raw[POSITIONS[self.layout][name]] = value
        return bytes(raw)

    def below(self, least: Tcb) -> tuple[str, ...]:
        """Components that are lower than in `least`; none means "at least". Raises TcbError for another layout."""
        if self.layout is not least.layout:
            raise TcbError(
                f"TCBs of {self.layout.value} and {least.layout.value} cannot be compared"
            )
        theirs = least.components()
        return tuple(name for name, value in self.components().items() if value < theirs[name])

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.components().items())


def parse_tcb(raw: bytes, layout: TcbLayout) -> Tcb:
    """Raises TcbError: another length, or a byte that is not zero where the layout has none."""
    if len(raw) != SIZE:
        raise TcbError(f"a TCB has {SIZE} bytes, this has {len(raw)}")
    positions = POSITIONS[layout]
    if any(raw[n] for n in range(SIZE) if n not in positions.values()):
        raise TcbError(f"{raw.hex()} is no TCB of {layout.value}: a byte that must be zero is not")
    return Tcb(layout, **{name: raw[at] for name, at in positions.items()})
