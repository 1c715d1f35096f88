"""Part four, field policy: does the report say what the relying party demands? (checks 17 to 23)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from parma_api.snp.bits import PlatformBit, PolicyBit, abi_of, key_info
from parma_api.snp.report import Report
from parma_tenant.verify.checks import Check, failed, judged, passed, skipped
from parma_tenant.verify.expectation import Expectation

_NO_AGENT: Final = b"\xff" * 32
_NOT_DEMANDED: Final = "not demanded"
_SHOWN_ONLY: Final = {
    "policy.cxl": PolicyBit.CXL_ALLOW,
    "policy.aes_xts": PolicyBit.MEM_AES_256_XTS,
    "policy.rapl": PolicyBit.RAPL_DIS,
    "policy.ciphertext_hiding": PolicyBit.CIPHERTEXT_HIDING,
    "policy.page_swap": PolicyBit.PAGE_SWAP_DISABLE,
}
"""Bits that no expectation names: they are shown."""
_PLATFORM: Final = {
    "smt": PlatformBit.SMT,
    "tsme": PlatformBit.TSME,
    "ecc": PlatformBit.ECC,
    "rapl": PlatformBit.RAPL_DIS,
    "alias_check": PlatformBit.ALIAS_CHECK,
}
_VALUES: Final = ("report_data", "host_data", "measurement", "family_id", "image_id")


def check_fields(report: Report, expectation: Expectation) -> Iterator[Check]:
    """All of `policy`, `value` and `platform`."""
    yield from _guest_policy(report, expectation)
    yield from _values(report, expectation)
    yield from _platform(report.platform_info, expectation)


def _guest_policy(report: Report, expectation: Expectation) -> Iterator[Check]:
    bits = PolicyBit(report.policy & ~0xFFFF)
    yield _permitted(
        "policy.debug",
        is_set=PolicyBit.DEBUG in bits,
        allowed=expectation.allow_debug,
        reason="the guest may be debugged: the host can read its memory",
    )
    yield _migration(report, expectation, is_set=PolicyBit.MIGRATE_MA in bits)
    smt, socket = PolicyBit.SMT in bits, PolicyBit.SINGLE_SOCKET in bits
    if expectation.forbid_smt:
        reason = "the guest policy allows SMT"
        yield judged("policy.smt", expected=False, got=smt, holds=not smt, reason=reason)
    else:
        yield skipped("policy.smt", _NOT_DEMANDED, got=smt)
    if expectation.require_single_socket:
        reason = "the guest policy allows more than one socket"
        yield judged("policy.single_socket", expected=True, got=socket, holds=socket, reason=reason)
    else:
        yield skipped("policy.single_socket", _NOT_DEMANDED, got=socket)
    for name, bit in _SHOWN_ONLY.items():
        yield skipped(name, _NOT_DEMANDED, got=bit in bits)
    yield _abi(report, expectation)


def _permitted(name: str, *, is_set: bool, allowed: bool, reason: str) -> Check:
    if is_set and allowed:
        return passed(name, got=True, reason=f"allowed by the expectations, although {reason}")
    return judged(name, expected=False, got=is_set, holds=not is_set, reason=reason)


def _migration(report: Report, expectation: Expectation, *, is_set: bool) -> Check:
    has_agent = report.report_id_ma != _NO_AGENT
    reason = "a migration agent may move the guest to another machine"
    if has_agent and not is_set:
        reason = "the report names a migration agent, which the guest policy does not allow"
        return failed("policy.migration", reason, expected=False, got=report.report_id_ma.hex())
    return _permitted(
        "policy.migration", is_set=is_set, allowed=expectation.allow_migration, reason=reason
    )


def _abi(report: Report, expectation: Expectation) -> Check:
    got, least = abi_of(report.policy), expectation.abi_min
    if least is None:
        return skipped("policy.abi", _NOT_DEMANDED, got=str(got))
    reason = f"the guest policy demands ABI {got} only"
    return judged(
        "policy.abi", expected=f"{least} or newer", got=str(got), holds=got >= least, reason=reason
    )


def _values(report: Report, expectation: Expectation) -> Iterator[Check]:
    vmpl: int | str = report.vmpl if report.vmpl <= 3 else f"0x{report.vmpl:x}"
    reason = "the report was asked for from another privilege level"
    if report.vmpl == 0xFFFF_FFFF:
        reason = "the report was asked for by the host, not by the guest"
    wanted = expectation.vmpl
    holds = report.vmpl == wanted
    yield judged("value.vmpl", expected=wanted, got=vmpl, holds=holds, reason=reason)
    for member in _VALUES:
        demanded = getattr(expectation, member)
        yield _one_of(f"value.{member}", getattr(report, member), demanded)
    svn, least = report.guest_svn, expectation.guest_svn_min
    if least is None:
        yield skipped("value.guest_svn", _NOT_DEMANDED, got=svn)
    else:
        reason = f"the guest's security version is {svn}"
        yield judged("value.guest_svn", expected=least, got=svn, holds=svn >= least, reason=reason)
    yield _one_of("value.id_key", report.id_key_digest, expectation.id_key_digests)
    yield _author_key(report, expectation)


def _one_of(name: str, value: bytes, demanded: tuple[bytes, ...] | None) -> Check:
    if demanded is None:
        return skipped(name, _NOT_DEMANDED, got=value.hex())
    expected = [one.hex() for one in demanded]
    reason = f"{name.partition('.')[2]} is not the expected one"
    return judged(name, expected=expected, got=value.hex(), holds=value in demanded, reason=reason)


def _author_key(report: Report, expectation: Expectation) -> Check:
    name, digest = "value.author_key", report.author_key_digest
    demanded = expectation.author_key_digests
    if not expectation.require_author_key and demanded is None:
        return skipped(name, _NOT_DEMANDED, got=digest.hex())
    if not key_info(report.key_info).author_key_enabled or not any(digest):
        return failed(name, "the guest was launched without an author key", got=digest.hex())
    if demanded is None:
        return passed(name, expected="an author key", got=digest.hex())
    return _one_of(name, digest, demanded)


def _platform(word: int, expectation: Expectation) -> Iterator[Check]:
    for member, bit in _PLATFORM.items():
        name, got = f"platform.{member}", bool(word & bit)
        wanted = expectation.platform.get(member)
        if wanted is None:
            yield skipped(name, _NOT_DEMANDED, got=got)
        else:
            reason = f"the platform has {bit.name} {'on' if got else 'off'}"
            yield judged(name, expected=wanted, got=got, holds=got is wanted, reason=reason)
