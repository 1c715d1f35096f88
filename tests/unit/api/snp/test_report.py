"""The report codec against reports of real processors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_api.snp import report

VECTORS = Path(__file__).parents[3] / "vectors" / "snp"
REPORTS = sorted(VECTORS.glob("*/report.bin"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_real_reports_round_trip(path: Path) -> None:
    data = path.read_bytes()
    parsed = report.parse(data)
    assert report.build(parsed) == data
    assert set(parsed.reserved) == {0}
    assert report.host_data_of(data) == parsed.host_data


def test_there_are_reports_of_three_generations() -> None:
    assert [path.parent.name for path in REPORTS] == [
        "genoa-v3",
        "milan-v2",
        "milan-v3",
        "turin-v5",
    ]


def test_fields_are_those_of_the_facts() -> None:
    facts = json.loads((VECTORS / "facts.json").read_text())
    text = json.dumps(facts)
    for path in REPORTS:
        parsed = report.parse(path.read_bytes())
        assert parsed.measurement.hex() in text
        assert parsed.host_data.hex() in text
        assert parsed.chip_id.hex() in text


@pytest.mark.parametrize("change", [-1, 1, -report.SIZE])
def test_another_length_is_no_report(change: int) -> None:
    data = (REPORTS[0].read_bytes() + b"\0")[: report.SIZE + change]
    with pytest.raises(report.ReportFormatError):
        report.parse(data)
    with pytest.raises(report.ReportFormatError):
        report.host_data_of(data)


def test_each_byte_lands_in_some_field() -> None:
    data = REPORTS[0].read_bytes()
    parsed = report.parse(data)
    for offset in range(0, report.SIZE, 7):
        changed = bytearray(data)
        changed[offset] ^= 0xFF
        assert report.parse(bytes(changed)) != parsed, hex(offset)
