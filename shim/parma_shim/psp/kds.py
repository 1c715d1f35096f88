"""What AMD's key distribution service would answer, for the stub's chips: leaf, chain, revocation list. Pure.

/vcek/v1/<line>/<hwid>?[fmcSPL=&]blSPL=&teeSPL=&snpSPL=&ucodeSPL=   DER
/vcek/v1/<line>/cert_chain      PEM, ASK then ARK                   /vcek/v1/<line>/crl   DER
/vlek/v1/<line>/...             the last two, for the ASVK: a VLEK itself is not public
"""

from __future__ import annotations

import enum
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.snp.tcb import Tcb, TcbError
from parma_api.status import InvalidArgumentError
from parma_shim.psp.chain import known_line, load_or_create, revocation_list
from parma_shim.psp.chips import find
from parma_shim.psp.leaf import make_leaf

MAX_PATH: Final = 1024
_SPLS: Final = {
    "fmcSPL": "fmc",
    "blSPL": "bootloader",
    "teeSPL": "tee",
    "snpSPL": "snp",
    "ucodeSPL": "microcode",
}
_SIGNERS: Final = {"vcek": SigningKey.VCEK, "vlek": SigningKey.VLEK}
_DER: Final = serialization.Encoding.DER


class Code(enum.IntEnum):
    """Of HTTP."""

    OK = 200
    BAD_REQUEST = 400
    NOT_FOUND = 404
    TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `retry_after` in seconds, for TOO_MANY."""

    code: Code
    body: bytes = b""
    kind: str = "application/pkix-cert"
    retry_after: int | None = None


class RateLimit:
    """At most `count` in any `seconds`; `clock` in seconds, monotonic."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float]) -> None:
        self._count, self._seconds, self._clock = count, seconds, clock
        self._times: list[float] = []

    def admit(self) -> float:
        """0 when one more may pass now (and then it counts), else seconds to wait."""
        now = self._clock()
        self._times = [at for at in self._times if now - at < self._seconds]
        if len(self._times) >= self._count:
            oldest = self._times[0] if self._times else now
            return max(oldest + self._seconds - now, 0.001)
        self._times.append(now)
        return 0.0


class KeyService:
    """Over the folder in which the stub's authorities and chips are."""

    def __init__(
        self, folder: Path, limit: RateLimit | None = None, revoked: tuple[int, ...] = ()
    ) -> None:
        self._folder, self._limit, self._revoked = folder, limit, revoked

    def get(self, target: str) -> Reply:
        """The answer to GET of this path and query."""
        wait = self._limit.admit() if self._limit is not None else 0.0
        if wait:
            return Reply(Code.TOO_MANY, kind="text/plain", retry_after=int(wait) + 1)
        parts = urllib.parse.urlsplit(target[: MAX_PATH + 1])
        words = parts.path.split("/")
        if len(target) > MAX_PATH or len(words) != 5 or words[0] or words[2] != "v1":
            return Reply(Code.NOT_FOUND)
        signer = _SIGNERS.get(words[1])
        try:
            line = known_line(words[3])
        except InvalidArgumentError:
            return Reply(Code.NOT_FOUND)
        if signer is None:
            return Reply(Code.NOT_FOUND)
        if words[4] in ("cert_chain", "crl"):
            return self._authority(words[4], line, signer)
        if signer is SigningKey.VLEK:
            return Reply(Code.NOT_FOUND)
        return self._leaf(line, words[4].lower(), parts.query)

    def _authority(self, what: str, line: ProductLine, signer: SigningKey) -> Reply:
        authority = load_or_create(self._folder, line, signer)
        if what == "cert_chain":
            return Reply(Code.OK, authority.pem(), "application/x-pem-file")
        crl = revocation_list(authority, self._revoked)
        return Reply(Code.OK, crl.public_bytes(_DER), "application/pkix-crl")

    def _leaf(self, line: ProductLine, hwid: str, query: str) -> Reply:
        try:
            tcb = read_query(line, dict(urllib.parse.parse_qsl(query, strict_parsing=True)))
        except (ValueError, TypeError, TcbError):
            return Reply(Code.BAD_REQUEST)
        chip = find(self._folder, line, hwid)
        if chip is None or tcb not in chip.tcbs:
            return Reply(Code.NOT_FOUND)
        leaf = make_leaf(load_or_create(self._folder, line), chip.seed, tcb)
        return Reply(Code.OK, leaf.certificate.public_bytes(_DER))


def read_query(line: ProductLine, query: Mapping[str, str]) -> Tcb:
    """The TCB in a query, levels decimal. Raises ValueError, TypeError or TcbError."""
    unknown = query.keys() - _SPLS.keys()
    if unknown or not all(level.isascii() and level.isdigit() for level in query.values()):
        raise ValueError("no query for a leaf")
    return Tcb(line.tcb_layout, **{_SPLS[name]: int(level) for name, level in query.items()})
