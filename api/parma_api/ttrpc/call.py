"""One call at the server: its context, and the stream object that a generated handler works on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

import betterproto

from parma_api.status import InternalError
from parma_api.ttrpc.inbox import Inbox
from parma_api.ttrpc.service import Method
from parma_api.wire.strict import Limits, Unknown, decode


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a handler may want to know besides the request."""

    deadline: float | None
    """Of the running loop's clock, in seconds; None: the caller waits for ever."""
    metadata: Mapping[str, tuple[str, ...]]


CALL: ContextVar[CallContext] = ContextVar("ttrpc call")
"""The call that the running handler serves."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How strictly a server or client reads its peer."""

    unknown: Unknown
    limits: Limits

    def __call__(self, cls: type[betterproto.Message], payload: bytes) -> betterproto.Message:
        """Raises InvalidArgumentError."""
        return decode(cls, payload, self.limits, unknown=self.unknown)


class UnaryStream:
    """Gives a handler one request and takes one response."""

    def __init__(self, request: betterproto.Message) -> None:
        self._request = request
        self._response: betterproto.Message | None = None

    @property
    def response(self) -> betterproto.Message:
        """Raises InternalError when the handler returned without one."""
        if self._response is None:
            raise InternalError("the handler gave no response")
        return self._response

    async def recv_message(self) -> betterproto.Message | None:
        return self._request

    async def send_message(self, message: betterproto.Message) -> None:
        self._response = message


class MessageStream:
    """Gives a handler requests as they come, and sends responses as it makes them."""

    def __init__(
        self,
        method: Method,
        inbox: Inbox,
        decoding: Decoding,
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._method = method
        self._inbox = inbox
        self._decoding = decoding
        self._send = send
        self.sent = 0

    async def recv_message(self) -> betterproto.Message | None:
        payload = await self._inbox.get()
        if payload is None:
            return None
        return self._decoding(self._method.info.request_type, payload)

    async def send_message(self, message: betterproto.Message) -> None:
        self.sent += 1
        await self._send(bytes(message))

    async def __aiter__(self) -> AsyncIterator[betterproto.Message]:
        while (message := await self.recv_message()) is not None:
            yield message
