"""Product lines: which processor made a report, and how its TCB is laid out (attestation reference, section 2)."""

from __future__ import annotations

import enum

from parma_api.snp.report import Report


class TcbLayout(enum.Enum):
    """Where the patch levels stand in the eight bytes of a TCB."""

    MILAN = "Milan, Genoa"
    TURIN = "Turin"


class ProductLine(enum.StrEnum):
    """As AMD's key service names it; Bergamo and Siena are Genoa's."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"
    VENICE = "Venice"

    @property
    def tcb_layout(self) -> TcbLayout:
        """The layout of its TCBs."""
        old = self in (ProductLine.MILAN, ProductLine.GENOA)
        return TcbLayout.MILAN if old else TcbLayout.TURIN

    @property
    def chip_id_size(self) -> int:
        """Significant bytes of a chip id."""
        return 64 if self.tcb_layout is TcbLayout.MILAN else 8


_MODELS: dict[int, tuple[tuple[range, ProductLine], ...]] = {
    0x19: (
        (range(0x10), ProductLine.MILAN),
        (range(0x10, 0x20), ProductLine.GENOA),
        (range(0xA0, 0xB0), ProductLine.GENOA),
    ),
    0x1A: (
        (range(0x12), ProductLine.TURIN),
        (range(0x50, 0x58), ProductLine.VENICE),
        (range(0x90, 0xB0), ProductLine.VENICE),
        (range(0xC0, 0xC8), ProductLine.VENICE),
    ),
}


def line_of_cpuid(family: int, model: int) -> ProductLine | None:
    """The line of a processor, or None for one that is not known."""
    found = (line for models, line in _MODELS.get(family, ()) if model in models)
    return next(found, None)


def line_named(name: str) -> ProductLine | None:
    """The line in a product name, with or without a stepping (`Milan-B0`)."""
    try:
        return ProductLine(name.partition("-")[0])
    except ValueError:
        return None


def has_short_chip_id(chip_id: bytes) -> bool:
    """Whether the id has Turin's form: eight bytes, then zeros."""
    return any(chip_id[:8]) and not any(chip_id[8:])


def line_of_report(report: Report) -> ProductLine | None:
    """What the report itself says: nothing before version 3, except that a short chip id is Turin's."""
    if report.version >= 3:
        return line_of_cpuid(report.cpuid_family, report.cpuid_model)
    return ProductLine.TURIN if has_short_chip_id(report.chip_id) else None
