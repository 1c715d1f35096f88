"""The broker's HTTP: MAA's and Key Vault's calls, who may make them, how often, and what a refusal looks like.

    POST   /attest/SevSnpVm?api-version=      evidence -> {"token"}                    anybody
    GET    /certs                             the keys of tokens, as JWK               anybody
    GET    /.well-known/openid-configuration  issuer and where /certs is               anybody
    POST   /challenge                         {"nonce"}                                anybody
    POST   /keys/NAME[/VERSION]/release       {"target": token} -> {"value": JWS}      whose token the policy takes
    PUT    /keys/NAME                         {"key", "release_policy"}                Bearer of the administrator
    GET    /keys/NAME[/VERSION], DELETE /keys/NAME                                     the same
    GET    /status                            {"message": "Status OK"}                 anybody

Errors: {"error": {"code", "message"}}. Bodies of requests never reach a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from aiohttp import web

from parma_api.status import ApiError, Code, InvalidArgumentError, RemoteError
from parma_tenant.broker.collateral import Collateral
from parma_tenant.broker.evidence import MAX_BODY, read_submission
from parma_tenant.broker.limits import RateLimit, peer_of
from parma_tenant.broker.service import Broker

_log = logging.getLogger("parma.broker")
_API_VERSION: Final = re.compile(r"[0-9][0-9.-]{1,15}(-?preview(\.[0-9])?)?")
BODY_SECONDS: Final = 30.0
_AT_A_TIME: Final = 8
_WAITING: Final = 256
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: Final = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.DEADLINE_EXCEEDED: 408,
    Code.ALREADY_EXISTS: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
}


def make_app(
    broker: Broker, collateral: Collateral, admin_token: bytes, limit: RateLimit
) -> web.Application:
    """The application; `admin_token` as it is sent."""
    return _Server(broker, collateral, admin_token, limit).application()


def status_of(error: ApiError) -> int:
    """The HTTP status for an error."""
    return _STATUS.get(error.code, 500)


class _Server:
    def __init__(
        self, broker: Broker, collateral: Collateral, admin_token: bytes, limit: RateLimit
    ) -> None:
        self._broker = broker
        self._collateral = collateral
        self._admin = hashlib.sha256(admin_token).digest()
        self._limit = limit
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._inside = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY + 8192, middlewares=[self._guard])
        app.add_routes(
            [
                web.post("/attest/{kind}", self._attest),
                web.get("/certs", self._certs),
                web.get("/.well-known/openid-configuration", self._openid),
                web.post("/challenge", self._challenge),
                web.post("/keys/{name}/release", self._release),
                web.post("/keys/{name}/{version}/release", self._release),
                web.put("/keys/{name}", self._put),
                web.get("/keys/{name}", self._show),
                web.get("/keys/{name}/{version}", self._show),
                web.delete("/keys/{name}", self._delete),
                web.get("/status", self._status),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every refusal in one form, and nothing of what failed inside."""
        try:
            self._limit.take(peer_of(request.remote or ""))
            with self._place():
                return await handler(request)
        except ApiError as error:
            status = status_of(error)
            _log.info("%s %s: %s", request.method, status, _printable(error.message))
            return _error(status, error.code.name, error.message)
        except web.HTTPException as error:
            return _error(error.status, error.reason.replace(" ", ""), error.reason)
        except Exception as error:  # noqa: BLE001 - the peer learns nothing of what broke inside
            _log.error("%s failed inside: %s", request.method, type(error).__name__)
            return _error(500, "INTERNAL", "the broker failed: see its log")

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._inside >= _WAITING:
            raise RemoteError(Code.UNAVAILABLE, "the broker is busy: try again")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        async with self._slots:
            return await asyncio.to_thread(work, *arguments)

    async def _attest(self, request: web.Request) -> web.Response:
        _api_version(request)
        if request.match_info["kind"].lower() != "sevsnpvm":
            raise RemoteError(Code.NOT_FOUND, "only SevSnpVm is attested here")
        submission = await self._run(read_submission, await _body(request))
        gathered = await self._collateral.gather(submission)
        answer = await self._run(self._broker.attest, submission, gathered)
        _log.info("attested")
        return web.json_response(answer)

    async def _certs(self, _request: web.Request) -> web.Response:
        return web.json_response(self._broker.certificates())

    async def _openid(self, _request: web.Request) -> web.Response:
        issuer = self._broker.issuer
        return web.json_response({"issuer": issuer, "jwks_uri": f"{issuer}/certs"})

    async def _challenge(self, _request: web.Request) -> web.Response:
        return web.json_response(self._broker.challenge())

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({"message": "Status OK"})

    async def _release(self, request: web.Request) -> web.Response:
        version, (name, number) = _api_version(request), _named(request)
        body = await _body(request)
        answer = await self._run(self._broker.release, name, number, body, version)
        _log.info("released %s", name)
        return web.json_response(answer)

    async def _put(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        _api_version(request)
        name, _ = _named(request)
        answer = await self._run(self._broker.put_key, name, await _body(request))
        _log.info("imported %s", name)
        return web.json_response(answer)

    async def _show(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.json_response(await self._run(self._broker.show_key, *_named(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        name, _ = _named(request)
        await self._run(self._broker.delete_key, name)
        _log.info("deleted %s", name)
        return web.json_response({})

    def _require_admin(self, request: web.Request) -> None:
        """Before the body is read. The comparison takes the same time for every token."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if not hmac.compare_digest(digest, self._admin) or scheme.lower() != "bearer":
            raise RemoteError(Code.UNAUTHENTICATED, "this needs the administrator's token")


def _named(request: web.Request) -> tuple[str, str | None]:
    return request.match_info["name"], request.match_info.get("version")


async def _body(request: web.Request) -> bytes:
    """Raises RemoteError for one that does not come."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise RemoteError(Code.DEADLINE_EXCEEDED, "the body of the request does not come") from None


def _api_version(request: web.Request) -> str:
    version = request.query.get("api-version", "")
    if not _API_VERSION.fullmatch(version):
        raise InvalidArgumentError("the query names an api-version")
    return version


def _error(status: int, code: str, message: str) -> web.Response:
    document = {"error": {"code": code, "message": _printable(message)}}
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return web.json_response(document, status=status, headers=headers)


def _printable(text: str) -> str:
    """One line of a bounded length."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])
