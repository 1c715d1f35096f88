"""The sidecar's REST interface (see the package): requests read strictly, refusals in one form."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from parma_api.status import ApiError, Code, InvalidArgumentError, ResourceExhaustedError
from parma_tenant.claims.encoding import from_b64, read_object
from parma_tenant.sidecar.skr.attestation import Attestation
from parma_tenant.sidecar.skr.endpoint import read_endpoint, read_kid
from parma_tenant.sidecar.skr.evidence import GroupEvidence
from parma_tenant.sidecar.skr.release import KeyRelease, Wanted, key_text

_log = logging.getLogger("parma.skr")
MAX_BODY: Final = 128 * 1024
_MAX_ACCESS_TOKEN: Final = 16 * 1024
_AT_A_TIME: Final = 64
_STATUS: Final = {
    Code.INVALID_ARGUMENT: 400,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 503,
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Sidecar:
    """The interface over its parts; `reference`: as `Attestation.endorsements`."""

    group: GroupEvidence
    attestation: Attestation
    keys: KeyRelease
    _inside: int = 0

    def application(self) -> web.Application:
        """For a listener on the loopback."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/status", self._status),
                web.post("/attest/raw", self._raw),
                web.post("/attest/combined", self._combined),
                web.post("/attest/maa", self._maa),
                web.post("/key/release", self._release),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            async with self._place():
                return await handler(request)
        except ApiError as error:
            status, text = _STATUS.get(error.code, 500), _printable(error.message)
            _log.warning("%s: %s: %s", _shown(request), status, text)
            return _error(status, text)
        except web.HTTPException as error:
            return _error(400 if error.status == 413 else error.status, error.reason)
        except Exception as error:  # noqa: BLE001 - the caller learns nothing of what broke inside
            _log.error("%s failed inside: %s", _shown(request), type(error).__name__)
            return _error(500, "the key-release sidecar failed: see its log")

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._inside >= _AT_A_TIME:
            raise ResourceExhaustedError("too many requests at a time: try again")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({"message": "Status OK"})

    async def _raw(self, request: web.Request) -> web.Response:
        body = await _body(request, {"runtime_data"})
        report = await self.group.report(_runtime(body))
        return web.json_response({"report": report.hex()})

    async def _combined(self, request: web.Request) -> web.Response:
        body = await _body(request, {"runtime_data"})
        evidence = await self.group.evidence(_runtime(body))
        answer = {
            "evidence": _b64(evidence.report),
            "endorsements": _b64(evidence.chain),
            "uvm_endorsements": _b64(self.attestation.endorsements()),
            "endorsed_tcb": evidence.endorsed_tcb,
        }
        return web.json_response(answer)

    async def _maa(self, request: web.Request) -> web.Response:
        body = await _body(request, {"maa_endpoint", "runtime_data"})
        service = read_endpoint(body.get("maa_endpoint"), "maa_endpoint")
        token = await self.attestation.token(service, _json_runtime(body))
        _log.info("%s: a token of %s", _shown(request), service.host)
        return web.json_response({"token": token})

    async def _release(self, request: web.Request) -> web.Response:
        names = {"maa_endpoint", "akv_endpoint", "kid"}
        wanted = _wanted(await _body(request, names, {"access_token"}))
        jwk = await self.keys.release(wanted)
        _log.info("%s: released %s of %s", _shown(request), wanted.key.name, wanted.vault.host)
        return web.json_response({"key": key_text(jwk)})


def _wanted(body: Mapping[str, Any]) -> Wanted:
    token = body.get("access_token", "")
    if not isinstance(token, str) or len(token) > _MAX_ACCESS_TOKEN or not _is_header(token):
        raise InvalidArgumentError("access_token is a bearer token")
    return Wanted(
        read_endpoint(body.get("maa_endpoint"), "maa_endpoint"),
        read_endpoint(body.get("akv_endpoint"), "akv_endpoint"),
        read_kid(body.get("kid")),
        token,
    )


def _is_header(text: str) -> bool:
    return text.isascii() and (not text or (text.isprintable() and " " not in text))


async def _body(
    request: web.Request, needed: set[str], more: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    found = read_object(await request.read(), "the request", MAX_BODY)
    if not needed <= set(found) <= needed | more:
        raise InvalidArgumentError(
            f"the request has the members {', '.join(sorted(needed | more))}"
        )
    return found


def _runtime(body: Mapping[str, Any]) -> bytes:
    return from_b64(body.get("runtime_data"), "runtime_data")


def _json_runtime(body: Mapping[str, Any]) -> bytes:
    """For a token: attestation services read runtime data as JSON."""
    runtime = _runtime(body)
    read_object(runtime, "runtime_data", MAX_BODY)
    return runtime


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(request: web.Request) -> str:
    return _printable(f"{request.method} {request.path}"[:100])


def _error(status: int, text: str) -> web.Response:
    headers = {"Retry-After": "2"} if status in (429, 503) else None
    return web.json_response({"error": text}, status=status, headers=headers)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:500])


@contextlib.asynccontextmanager
async def listening(sidecar: Sidecar, port: int) -> AsyncIterator[int]:
    """The port on the loopback, until left. Raises OSError."""
    runner = web.AppRunner(sidecar.application(), access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await asyncio.shield(runner.cleanup())
