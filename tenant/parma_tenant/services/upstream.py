"""Calls to services outside the group: TLS under named roots, no redirects, bounded in time, size and number.

A service that is away, slow or rate-limiting is UnavailableError, whatever it sends; one that says no is
PermissionDeniedError. Neither ever yields a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from parma_api.status import (
    DataLossError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
)
from parma_tenant.claims.encoding import read_object

MAX_ANSWER: Final = 1 << 20
ATTEMPTS: Final = 3
_TRY_SECONDS: Final = 30.0
_SECONDS: Final = 90.0
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
_AGAIN: Final = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: for one try, for all, between two (doubled each time; a Retry-After counts if it is not longer)."""

    one: float = _TRY_SECONDS
    all: float = _SECONDS
    pause: float = _PAUSE
    longest_pause: float = _LONGEST_PAUSE


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = field(repr=False)
    retry_after: float | None


class Upstream:
    """One client for all services."""

    def __init__(self, session: aiohttp.ClientSession, timing: Timing) -> None:
        self._session = session
        self._timing = timing

    async def post(
        self, url: str, body: Mapping[str, Any], what: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON that `what` (for messages) answers.

        Raises PermissionDeniedError, UnavailableError, DataLossError.
        """
        return await self.send("POST", url, what, body, headers)

    async def send(
        self,
        method: str,
        url: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The same with another method. Raises as `post`."""
        data = None if body is None else dict(body)
        return _object(await self._call(method, url, what, json=data, headers=headers), what)

    async def get(self, url: str, what: str, headers: Mapping[str, str] | None = None) -> bytes:
        """What `what` answers. Raises as `post`."""
        return await self._call("GET", url, what, headers=headers)

    async def get_object(
        self, url: str, what: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The same, as JSON."""
        return _object(await self.get(url, what, headers), what)

    async def _call(self, method: str, url: str, what: str, **options: Any) -> bytes:
        try:
            async with asyncio.timeout(self._timing.all):
                return await self._tries(method, url, what, **options)
        except TimeoutError:
            raise UnavailableError(f"{what} does not answer in time: try again") from None

    async def _tries(self, method: str, url: str, what: str, **options: Any) -> bytes:
        pause, reason = self._timing.pause, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause *= 2
            try:
                answer = await self._once(method, url, **options)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = _network_reason(error)
                continue
            if answer.status == 200:
                return answer.body
            if answer.status not in _AGAIN:
                raise PermissionDeniedError(
                    f"{what} refuses ({answer.status}): {_said(answer.body)}"
                )
            reason = f"{answer.status} {_said(answer.body)}"
            if answer.retry_after is not None:
                if answer.retry_after > self._timing.longest_pause:
                    break
                pause = max(pause, answer.retry_after)
        raise UnavailableError(f"{what} is not available: {reason}")

    async def _once(self, method: str, url: str, **options: Any) -> _Answer:
        limit = aiohttp.ClientTimeout(total=self._timing.one)
        async with self._session.request(
            method, url, allow_redirects=False, timeout=limit, **options
        ) as answer:
            body = await _bounded(answer.content)
            return _Answer(answer.status, body, _seconds(answer.headers.get("Retry-After")))


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for part in content.iter_chunked(64 * 1024):
        body += part
        if len(body) > MAX_ANSWER:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return bytes(body)


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; its form as a date is passed over."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else None


def _network_reason(error: Exception) -> str:
    """Without the text of the error, which may quote what was sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its certificate does not lead to a trusted root for this name"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorDNSError):
        return "no connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return type(error).__name__


def _said(body: bytes) -> str:
    """The reason in an error's body, in MAA's and Key Vault's form; one bounded line."""
    with contextlib.suppress(InvalidArgumentError):
        error = read_object(body, "an error", MAX_ANSWER).get("error")
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return "".join(c if c.isprintable() else "?" for c in message[:300])
    return "no reason given"


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        return read_object(body, f"the answer of {what}", MAX_ANSWER)
    except InvalidArgumentError as error:
        raise DataLossError(error.message) from None


@contextlib.asynccontextmanager
async def upstream(
    roots: bytes | None, user_agent: str, timing: Timing | None = None
) -> AsyncIterator[Upstream]:
    """A client; `roots` PEM, or None for the system's. Raises InvalidArgumentError for roots that are none."""
    try:
        context = ssl.create_default_context(
            cadata=None if roots is None else roots.decode("ascii")
        )
    except (ssl.SSLError, ValueError):
        raise InvalidArgumentError("the trusted roots are no PEM certificates") from None
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=16),
        headers={"User-Agent": user_agent},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Upstream(session, timing or Timing())
