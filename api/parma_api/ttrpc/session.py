"""Streams of one connection, both roles: bytes in, events out (containerd.md 1.2 to 1.5).

    server stream            Request 0 -> UNARY          Request RC -> LISTENING         Request RO -> OPEN
        OPEN --Data RC--> LISTENING         any --our Response, or our Data RC--> gone
    client stream            unary -> UNARY              no requests follow -> LISTENING     stream -> OPEN
        OPEN --our Data RC--> LISTENING     any --Response, or Data RC--> gone

A stream that is gone is not remembered: only the highest id is.
"""

from __future__ import annotations

from typing import Final

from parma_api.status import (
    ApiError,
    Code,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    RemoteError,
    ResourceExhaustedError,
    UnavailableError,
)
from parma_api.ttrpc.envelope import (
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from parma_api.ttrpc.events import (
    CallStarted,
    ClientEvent,
    Completed,
    Failed,
    Message,
    Phase,
    RemoteClosed,
    Reply,
    ServerEvent,
)
from parma_api.ttrpc.frame import MAX_DATA, Flag, Frame, FrameDecoder, FrameType, Oversized, encode
from parma_api.wire.strict import Unknown

MAX_STREAM_ID: Final = (1 << 32) - 1
_CODES: Final = frozenset(int(code) for code in Code)
MAX_ERROR_TEXT: Final = 16384
"""Characters of a status message; what is longer is cut."""


# --- server --------------------------------------------------------------------------------------------------------


class ServerSession:
    """The server's side of one connection."""

    def __init__(self, unknown: Unknown = Unknown.REFUSE, max_streams: int = 1024) -> None:
        self._unknown = unknown
        self._max_streams = max_streams
        self._decoder = FrameDecoder()
        self._last_id = 0
        self._streams: dict[int, Phase] = {}

    def receive(self, data: bytes) -> list[ServerEvent]:
        """What these bytes mean, in order."""
        events: list[ServerEvent] = []
        for frame in self._decoder.feed(data):
            if isinstance(frame, Oversized):
                events += self._oversized(frame)
            elif frame.type == FrameType.REQUEST:
                events += self._request(frame)
            elif frame.type == FrameType.DATA:
                events += self._data(frame)
        return events

    def is_active(self, stream_id: int) -> bool:
        """Whether something may still be sent on the stream."""
        return stream_id in self._streams

    def respond(self, stream_id: int, payload: bytes) -> bytes:
        """The one response of a call that does not stream its responses; an error when it is too large."""
        data = encode_response(Response(payload))
        if len(data) > MAX_DATA:
            return self.fail(stream_id, _too_large("response", len(data)))
        self._end(stream_id)
        return encode(stream_id, FrameType.RESPONSE, Flag.NONE, data)

    def fail(self, stream_id: int, error: ApiError) -> bytes:
        """End a call with an error."""
        self._end(stream_id)
        return _status_frame(stream_id, error)

    def send(self, stream_id: int, payload: bytes) -> bytes:
        """One message of a streaming response. Raises ResourceExhaustedError, FailedPreconditionError."""
        if stream_id not in self._streams:
            raise FailedPreconditionError(f"stream {stream_id} has ended")
        return _message_frame(stream_id, payload)

    def close(self, stream_id: int) -> bytes:
        """End a streaming response well."""
        self._end(stream_id)
        return _closing_frame(stream_id)

    def _end(self, stream_id: int) -> None:
        if self._streams.pop(stream_id, None) is None:
            raise FailedPreconditionError(f"stream {stream_id} has ended")

    def _breach(self, stream_id: int, error: ApiError) -> list[ServerEvent]:
        """Answer, and end the stream if it is active."""
        events: list[ServerEvent] = [Reply(_status_frame(stream_id, error))]
        if self._streams.pop(stream_id, None) is not None:
            events.append(Failed(stream_id, error))
        return events

    def _oversized(self, frame: Oversized) -> list[ServerEvent]:
        if frame.type not in (FrameType.REQUEST, FrameType.DATA):
            return []
        return self._breach(
            frame.stream_id, _too_large("message", frame.length, self._decoder.max_data)
        )

    def _request(self, frame: Frame) -> list[ServerEvent]:
        stream_id = frame.stream_id
        if stream_id % 2 == 0:
            return [_refusal(stream_id, "StreamID must be odd for client initiated streams")]
        if stream_id <= self._last_id:
            return [_refusal(stream_id, "StreamID cannot be re-used and must increment")]
        self._last_id = stream_id
        try:
            request = decode_request(frame.data, self._unknown)
        except InvalidArgumentError as error:
            return [_refusal(stream_id, f"unmarshal request error: {error.message}")]
        if len(self._streams) >= self._max_streams:
            full = ResourceExhaustedError(f"{len(self._streams)} calls are under way, no more")
            return [Reply(_status_frame(stream_id, full))]
        phase = _opening_phase(frame.flags)
        self._streams[stream_id] = phase
        events: list[ServerEvent] = [CallStarted(stream_id, request, phase)]
        if phase is Phase.OPEN and request.payload:
            events.append(Message(stream_id, request.payload))
        return events

    def _data(self, frame: Frame) -> list[ServerEvent]:
        stream_id = frame.stream_id
        phase = self._streams.get(stream_id)
        if phase is None:
            return [_refusal(stream_id, "StreamID is no longer active")]
        if phase is not Phase.OPEN:
            return self._breach(
                stream_id, InvalidArgumentError("no data may follow on this stream")
            )
        events: list[ServerEvent] = []
        has_message = not frame.flags & Flag.NO_DATA
        closes = bool(frame.flags & Flag.REMOTE_CLOSED)
        if has_message and (frame.data or not closes):
            events.append(Message(stream_id, frame.data))
        if closes:
            self._streams[stream_id] = Phase.LISTENING
            events.append(RemoteClosed(stream_id))
            if frame.data:
                both = InvalidArgumentError("data close message cannot include data")
                events += self._breach(stream_id, both)
        return events


def _opening_phase(flags: int) -> Phase:
    if flags & Flag.REMOTE_OPEN:
        return Phase.OPEN
    return Phase.LISTENING if flags & Flag.REMOTE_CLOSED else Phase.UNARY


# --- client --------------------------------------------------------------------------------------------------------


class ClientSession:
    """The client's side of one connection."""

    def __init__(self, unknown: Unknown = Unknown.REFUSE, max_response: int = MAX_DATA) -> None:
        self._unknown = unknown
        self._decoder = FrameDecoder(max_response)
        self._next_id = 1
        self._streams: dict[int, Phase] = {}
        self._streaming: set[int] = set()
        """Calls whose responses are a stream."""

    def call(
        self, request: Request, phase: Phase, *, streams_back: bool = False
    ) -> tuple[int, bytes]:
        """Begin a call: its stream id and the frame. Raises ResourceExhaustedError, UnavailableError."""
        data = encode_request(request)
        if len(data) > MAX_DATA:
            raise _too_large("request", len(data))
        if self._next_id > MAX_STREAM_ID:
            raise UnavailableError("stream ids of this connection are used up: reconnect")
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = phase
        if streams_back:
            self._streaming.add(stream_id)
        return stream_id, encode(stream_id, FrameType.REQUEST, _OPENING_FLAGS[phase], data)

    def send(self, stream_id: int, payload: bytes) -> bytes:
        """One more request message. Raises ResourceExhaustedError; FailedPreconditionError where none may follow."""
        self._require_open(stream_id)
        return _message_frame(stream_id, payload)

    def close(self, stream_id: int) -> bytes:
        """All requests are sent: always a frame of its own. Raises FailedPreconditionError."""
        self._require_open(stream_id)
        self._streams[stream_id] = Phase.LISTENING
        return _closing_frame(stream_id)

    def forget(self, stream_id: int) -> None:
        """Whatever still comes for this call is dropped; ttrpc has no cancel message."""
        self._streams.pop(stream_id, None)
        self._streaming.discard(stream_id)

    def is_active(self, stream_id: int) -> bool:
        """Whether the call has not ended."""
        return stream_id in self._streams

    def receive(self, data: bytes) -> list[ClientEvent]:
        """What these bytes mean, in order; frames of calls that are over or never were are dropped."""
        events: list[ClientEvent] = []
        for frame in self._decoder.feed(data):
            phase = self._streams.get(frame.stream_id)
            if phase is None:
                continue
            if isinstance(frame, Oversized):
                self.forget(frame.stream_id)
                events.append(
                    Failed(
                        frame.stream_id, _too_large("message", frame.length, self._decoder.max_data)
                    )
                )
            elif frame.type == FrameType.RESPONSE:
                events += self._response(frame)
            elif frame.type == FrameType.DATA:
                events += self._data(frame, phase)
        return events

    def _require_open(self, stream_id: int) -> None:
        if self._streams.get(stream_id) is not Phase.OPEN:
            raise FailedPreconditionError(f"stream {stream_id} takes no more messages")

    def _response(self, frame: Frame) -> list[ClientEvent]:
        stream_id = frame.stream_id
        streaming = stream_id in self._streaming
        self.forget(stream_id)
        try:
            response = decode_response(frame.data, self._unknown)
        except InvalidArgumentError as error:
            return [Failed(stream_id, InternalError(f"response broken: {error.message}"))]
        if response.code:
            return [Failed(stream_id, _remote_error(response))]
        if streaming:
            return [Message(stream_id, response.payload), RemoteClosed(stream_id)]
        return [Completed(stream_id, response.payload)]

    def _data(self, frame: Frame, phase: Phase) -> list[ClientEvent]:
        stream_id = frame.stream_id
        if stream_id not in self._streaming:
            self.forget(stream_id)
            kind = "unary call" if phase is Phase.UNARY else "call with one response"
            return [Failed(stream_id, InternalError(f"protocol error: {kind} answered by data"))]
        events: list[ClientEvent] = []
        closes = frame.flags & Flag.REMOTE_CLOSED
        if not frame.flags & Flag.NO_DATA and (frame.data or not closes):
            events.append(Message(stream_id, frame.data))
        if closes:
            self.forget(stream_id)
            events.append(RemoteClosed(stream_id))
        return events


_OPENING_FLAGS: Final = {
    Phase.UNARY: Flag.NONE,
    Phase.OPEN: Flag.REMOTE_OPEN,
    Phase.LISTENING: Flag.REMOTE_CLOSED,
}


# --- both ----------------------------------------------------------------------------------------------------------


def _message_frame(stream_id: int, payload: bytes) -> bytes:
    if len(payload) > MAX_DATA:
        raise _too_large("message", len(payload))
    return encode(stream_id, FrameType.DATA, Flag.NONE, payload)


def _closing_frame(stream_id: int) -> bytes:
    return encode(stream_id, FrameType.DATA, Flag.REMOTE_CLOSED | Flag.NO_DATA, b"")


def _status_frame(stream_id: int, error: ApiError) -> bytes:
    text = error.message[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()
    response = Response(code=int(error.code) or int(Code.UNKNOWN), message=text)
    return encode(stream_id, FrameType.RESPONSE, Flag.NONE, encode_response(response))


def _refusal(stream_id: int, text: str) -> Reply:
    return Reply(_status_frame(stream_id, InvalidArgumentError(text)))


def _remote_error(response: Response) -> RemoteError:
    code = Code(response.code) if response.code in _CODES else Code.UNKNOWN
    return RemoteError(code, response.message[:MAX_ERROR_TEXT])


def _too_large(what: str, length: int, limit: int = MAX_DATA) -> ResourceExhaustedError:
    text = f"{what} length {length} exceed maximum message size of {limit}"
    return ResourceExhaustedError(text)
