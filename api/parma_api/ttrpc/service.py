"""Services: what generated bases derive from, and the table that a server makes of them.

Imports nothing heavy: the agent imports it before its first answer.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import betterproto
import grpclib.const

if TYPE_CHECKING:
    from grpclib.client import Channel

    from parma_api.ttrpc.client import TtrpcClient

T = TypeVar("T")


class HandlerStream(Protocol):
    """What a generated handler needs of a call: grpclib's stream has it, and ours."""

    async def recv_message(self) -> betterproto.Message | None:
        """The next request; None at their end."""

    async def send_message(self, message: betterproto.Message) -> None:
        """A response."""

    def __aiter__(self) -> AsyncIterator[betterproto.Message]: ...


class ServiceBase(ABC):  # noqa: B024 - the generated subclasses define what is abstract in effect
    """The base of generated services; same interface as betterproto's own, which imports grpclib.server."""

    async def _call_rpc_handler_server_stream(
        self,
        handler: Callable[[T], AsyncIterator[betterproto.Message]],
        stream: HandlerStream,
        request: T,
    ) -> None:
        async for response in handler(request):
            await stream.send_message(response)

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        raise NotImplementedError


class ServiceStub(betterproto.ServiceStub):
    """The base of generated stubs: over ttrpc, or over grpclib for containerd's gRPC services."""

    def __init__(self, channel: Channel | TtrpcClient, **options: Any) -> None:
        """`options`: timeout, deadline, metadata of every call that does not give its own."""
        super().__init__(channel, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One method of a service."""

    service: str
    """Full name: `parma.agent.v1.Agent`."""
    method: str
    """Bare name: `MountLayer`."""
    request_type: type[betterproto.Message]
    response_type: type[betterproto.Message]
    cardinality: grpclib.const.Cardinality


@dataclass(frozen=True, slots=True)
class Method:
    """A method and the handler that a service object gave for it."""

    info: MethodInfo
    handler: grpclib.const.Handler


def method_table(services: list[ServiceBase]) -> dict[str, dict[str, Method]]:
    """Service name -> method name -> method. Raises ValueError when two objects offer one service."""
    table: dict[str, dict[str, Method]] = {}
    for service in services:
        own = _methods(service)
        if own.keys() & table.keys():
            raise ValueError(f"two objects offer the same service: {', '.join(own)}")
        table.update(own)
    return table


def _methods(service: ServiceBase) -> dict[str, dict[str, Method]]:
    own: dict[str, dict[str, Method]] = {}
    for route, handler in service.__mapping__().items():
        _, service_name, method_name = route.split("/")
        info = MethodInfo(
            service_name,
            method_name,
            handler.request_type,
            handler.reply_type,
            handler.cardinality,
        )
        own.setdefault(service_name, {})[method_name] = Method(info, handler)
    return own
