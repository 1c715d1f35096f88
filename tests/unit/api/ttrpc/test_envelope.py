"""The hand-written envelopes against the generated classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.gen import ttrpc
from parma_api.gen.google.rpc import Status
from parma_api.status import InvalidArgumentError
from parma_api.ttrpc.envelope import (
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from parma_api.wire.strict import Unknown

TEXT = st.text(max_size=20)
REQUESTS = st.builds(
    Request,
    service=TEXT,
    method=TEXT,
    payload=st.binary(max_size=300),
    timeout_nano=st.integers(-(1 << 63), (1 << 63) - 1),
    metadata=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
)
RESPONSES = st.one_of(
    st.builds(Response, payload=st.binary(max_size=300)),
    st.builds(Response, code=st.integers(1, 16), message=TEXT),
)


def generated(request: Request) -> ttrpc.Request:
    return ttrpc.Request(
        service=request.service,
        method=request.method,
        payload=request.payload,
        timeout_nano=request.timeout_nano,
        metadata=[ttrpc.KeyValue(key, value) for key, value in request.metadata],
    )


@given(request=REQUESTS)
def test_requests(request: Request) -> None:
    raw = encode_request(request)
    assert raw == bytes(generated(request))
    assert decode_request(raw, Unknown.REFUSE) == request


@given(response=RESPONSES)
def test_responses(response: Response) -> None:
    raw = encode_response(response)
    other = ttrpc.Response(payload=response.payload)
    if response.code:
        other = ttrpc.Response(status=Status(code=response.code, message=response.message))
    assert raw == bytes(other)
    assert decode_response(raw, Unknown.REFUSE) == response


@given(raw=st.binary(max_size=60), unknown=st.sampled_from(Unknown))
def test_any_bytes(raw: bytes, unknown: Unknown) -> None:
    """What passes means the same to betterproto; what does not is refused."""
    try:
        request = decode_request(raw, unknown)
    except InvalidArgumentError:
        return
    assert generated(request) == ttrpc.Request().parse(raw)


def test_a_newer_peers_fields_are_skipped() -> None:
    extra = bytes.fromhex("a00601 a1060000000000000000 a2060161 a50600000000")
    raw = encode_request(Request("s", "m", b"p", 1, (("k", "v"),))) + extra
    assert decode_request(raw, Unknown.IGNORE).payload == b"p"
    with pytest.raises(InvalidArgumentError, match="unknown field 100"):
        decode_request(raw, Unknown.REFUSE)


def test_repeated_and_mixed_case_keys() -> None:
    request = Request("s", "m", metadata=(("Key", "1"), ("other", ""), ("key", "2")))
    assert request.metadata_lists() == {"key": ("1", "2"), "other": ("",)}
