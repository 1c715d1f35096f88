"""Part four continued: patch levels, firmware versions, mitigations (checks 24 to 29)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from parma_api.snp.product import TcbLayout
from parma_api.snp.report import FirmwareVersion, Report
from parma_api.snp.tcb import POSITIONS, Tcb, TcbError, parse_tcb
from parma_tenant.verify.binding import Device
from parma_tenant.verify.checks import Check, failed, judged, passed, skipped
from parma_tenant.verify.expectation import Expectation

_NOT_DEMANDED = "not demanded"


def check_levels(report: Report, device: Device | str, expectation: Expectation) -> Iterator[Check]:
    """All of `tcb`. Without a device (the text says why) patch levels cannot be read, and their checks fail."""
    current = _read(report.current_tcb, device)
    committed = _read(report.committed_tcb, device)
    launch = _read(report.launch_tcb, device)
    yield _leaf(device, current)
    yield _provisional(report, current, committed, expectation)
    reported = device if isinstance(device, str) else device.reported
    yield _minimum("tcb.minimum", reported, expectation.tcb_min)
    yield _minimum("tcb.launch_minimum", launch, expectation.launch_tcb_min)
    yield _firmware(report, expectation)
    yield _mitigations(report, expectation)


def _read(raw: bytes, device: Device | str) -> Tcb | str:
    if isinstance(device, str):
        return device
    try:
        return parse_tcb(raw, device.line.tcb_layout)
    except TcbError as error:
        return error.message


def _leaf(device: Device | str, current: Tcb | str) -> Check:
    if isinstance(device, str):
        return failed("tcb.leaf", device)
    if isinstance(current, str):
        return failed("tcb.leaf", current)
    return _at_most("tcb.leaf", device.leaf_tcb, current, "the certificate's TCB is above current")


def _at_most(name: str, lower: Tcb, upper: Tcb, reason: str) -> Check:
    try:
        above = upper.below(lower)
    except TcbError as error:
        return failed(name, error.message, expected=str(upper), got=str(lower))
    return judged(
        name,
        expected=f"at most {upper}",
        got=str(lower),
        holds=not above,
        reason=f"{reason}: {', '.join(above)}",
    )


def _provisional(
    report: Report, current: Tcb | str, committed: Tcb | str, expectation: Expectation
) -> Check:
    """Firmware that is not committed can be taken back: what runs now may run no longer tomorrow."""
    name = "tcb.provisional"
    if isinstance(current, str) or isinstance(committed, str):
        return failed(name, current if isinstance(current, str) else str(committed))
    now, kept = report.current_firmware, report.committed_firmware
    got = f"committed {committed} firmware {kept}"
    expected = f"current {current} firmware {now}"
    if current == committed and now == kept:
        return passed(name, expected=expected, got=got)
    if not expectation.allow_provisional:
        reason = "the firmware is provisional: committed and current TCB or version differ"
        return failed(name, reason, expected=expected, got=got)
    check = _at_most(name, committed, current, "the committed TCB is above the current one")
    if check.reason or _numbers(kept) <= _numbers(now):
        return check
    reason = "the committed firmware is newer than the current one"
    return failed(name, reason, expected=expected, got=got)


def _numbers(version: FirmwareVersion) -> tuple[int, int, int]:
    return (version.major, version.minor, version.build)


def _minimum(name: str, tcb: Tcb | str, least: Mapping[str, int] | None) -> Check:
    if least is None:
        return skipped(name, _NOT_DEMANDED, got=str(tcb) if isinstance(tcb, Tcb) else None)
    expected = " ".join(f"{component}>={level}" for component, level in least.items())
    if isinstance(tcb, str):
        return failed(name, tcb, expected=expected)
    levels = tcb.components()
    if foreign := sorted(set(least) - set(levels)):
        layout = _layout_with(foreign[0])
        reason = f"{foreign[0]} belongs to TCBs of {layout}: this one cannot be compared with it"
        return failed(name, reason, expected=expected, got=str(tcb))
    low = [component for component, level in least.items() if levels[component] < level]
    return judged(
        name, expected=expected, got=str(tcb), holds=not low, reason=f"too low: {', '.join(low)}"
    )


def _layout_with(component: str) -> str:
    return next(layout.value for layout in TcbLayout if component in POSITIONS[layout])


def _firmware(report: Report, expectation: Expectation) -> Check:
    """Both versions count: to the committed one the host can go back at any time."""
    now, kept, least = (
        report.current_firmware,
        report.committed_firmware,
        expectation.firmware_min,
    )
    got = f"current {now}, committed {kept}"
    if least is None:
        return skipped("tcb.firmware", _NOT_DEMANDED, got=got)
    holds = min(_numbers(now), _numbers(kept)) >= _numbers(least)
    return judged(
        "tcb.firmware",
        expected=f"{least} or newer",
        got=got,
        holds=holds,
        reason="the firmware is too old",
    )


def _mitigations(report: Report, expectation: Expectation) -> Check:
    name, wanted = "tcb.mitigations", expectation.mitigations
    if report.version < 5:
        if wanted is None:
            return skipped(name, _NOT_DEMANDED)
        reason = f"reports of version {report.version} carry no mitigation vectors"
        return failed(name, reason, expected=_vectors(wanted.launch, wanted.current))
    got = _vectors(report.launch_mitigations, report.current_mitigations)
    if wanted is None:
        return skipped(name, _NOT_DEMANDED, got=got)
    missing_at_launch = wanted.launch & ~report.launch_mitigations
    missing_now = wanted.current & ~report.current_mitigations
    return judged(
        name,
        expected=_vectors(wanted.launch, wanted.current),
        got=got,
        holds=not missing_at_launch and not missing_now,
        reason=f"bits are missing: {_vectors(missing_at_launch, missing_now)}",
    )


def _vectors(launch: int, current: int) -> str:
    return f"launch 0x{launch:x}, current 0x{current:x}"
