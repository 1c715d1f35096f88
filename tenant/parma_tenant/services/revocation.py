"""AMD's revocation lists, kept under rules of their own.

    fetched   when there is none, when half of the kept one's remaining time is over, and once a day
    used      until the list itself says that it ends, while a newer one cannot be had: not a second longer
    refused   what is no list, is not signed by a trusted root, has ended, or is older than the kept one: whoever
              answers for the service can neither turn time back nor stop it
    asked     not again for a while after a failure

A service that is away so makes nothing acceptable that it could refuse; in the end it makes everything refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm

from parma_api.snp import kds
from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.status import ApiError, UnavailableError
from parma_tenant.services.certificates import Patience
from parma_tenant.services.upstream import Upstream
from parma_tenant.verify.chain import signed_by
from parma_tenant.verify.intake import IntakeError, read_crl, read_sources
from parma_tenant.verify.roots import Roots

_DAY: Final = 24 * 3600.0
_WHAT: Final = "the service of revocation lists"


@dataclass(frozen=True, slots=True)
class _Kept:
    """Times in seconds of the epoch."""

    data: bytes
    issued: float
    ends: float
    refresh: float


class RevocationKeeper:
    """Lists by product line and kind of leaf. `base`: the URL before `/vcek/`. `clock`: seconds of the epoch."""

    def __init__(
        self,
        base: str,
        client: Upstream,
        roots: Roots,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base, self._client, self._roots, self._clock = base, client, roots, clock
        self._patience = patience or Patience()
        self._kept: dict[tuple[ProductLine, SigningKey], _Kept] = {}
        self._rest: dict[tuple[ProductLine, SigningKey], float] = {}
        self._lock = asyncio.Lock()

    async def crl(self, line: ProductLine, signer: SigningKey) -> bytes:
        """The list, DER or PEM, current now. Raises UnavailableError: none is kept that still holds."""
        async with self._lock:
            key, now = (line, signer), self._clock()
            kept = self._kept.get(key)
            reason = "it failed a moment ago"
            if (kept is None or now >= kept.refresh) and now >= self._rest.get(key, 0.0):
                try:
                    kept = self._kept[key] = await self._fetch(key, kept)
                except ApiError as error:
                    self._rest[key] = now + self._patience.rest
                    reason = error.message
            if kept is None or now >= kept.ends:
                raise UnavailableError(f"no revocation list of {line} can be had: {reason}")
            return kept.data

    async def _fetch(self, key: tuple[ProductLine, SigningKey], old: _Kept | None) -> _Kept:
        data = await self._client.get(self._base + kds.crl_path(*key), _WHAT)
        chain = await self._client.get(self._base + kds.chain_path(*key), _WHAT)
        now, found = self._clock(), _read(data)
        if not _signed(data, chain, self._roots):
            raise UnavailableError(f"{_WHAT} has a list that no trusted root signed")
        if not found.issued <= now < found.ends:
            raise UnavailableError(f"{_WHAT} has a list only that does not hold now")
        if old is not None and found.issued < old.issued:
            raise UnavailableError(f"{_WHAT} has an older list than it had")
        half = now + (found.ends - now) / 2
        return _Kept(found.data, found.issued, found.ends, min(half, now + _DAY))


def _signed(crl: bytes, chain: bytes, roots: Roots) -> bool:
    try:
        given = read_sources((chain,)).given
        trusted = [one.certificate for one in given if roots.find(one.certificate) is not None]
    except (IntakeError, ValueError, UnsupportedAlgorithm):
        return False
    return any(signed_by(read_crl(crl), root) for root in trusted)


def _read(data: bytes) -> _Kept:
    try:
        crl = read_crl(data)
    except IntakeError as error:
        raise UnavailableError(f"{_WHAT} answers with something else: {error.message}") from None
    end = crl.next_update_utc
    if end is None:
        raise UnavailableError(f"{_WHAT} has a list that does not say until when it holds")
    return _Kept(data, crl.last_update_utc.timestamp(), end.timestamp(), 0.0)
