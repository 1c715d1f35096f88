"""What the sessions report."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from parma_api.status import ApiError
from parma_api.ttrpc.envelope import Request


class Phase(enum.Enum):
    """Where a stream stands."""

    UNARY = "one request, one response"
    OPEN = "the client may send"
    LISTENING = "the client has said all"


@dataclass(frozen=True, slots=True)
class CallStarted:
    """Server: a call begins."""

    stream_id: int
    request: Request
    phase: Phase


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream."""

    stream_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RemoteClosed:
    """No more messages will come; at the client: the call has ended well."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Completed:
    """Client: the one response of a call."""

    stream_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Client: the call has ended with an error. Server: the client broke the rules, the call must be cancelled."""

    stream_id: int
    error: ApiError


@dataclass(frozen=True, slots=True)
class Reply:
    """Server: bytes to send back; the session answers breaches of the protocol itself."""

    frame: bytes


ServerEvent: TypeAlias = CallStarted | Message | RemoteClosed | Failed | Reply
ClientEvent: TypeAlias = Completed | Message | RemoteClosed | Failed
