"""JSON of the host: one meaning, or none."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import ApiError, InvalidArgumentError, ResourceExhaustedError
from parma_guest.oci.document import MAX_BYTES, MAX_DEPTH, read_document


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"a": 1, "a": 1}', "same name twice"),
        (b'{"a": {"b": 1, "b": 2}}', "same name twice"),
        (b'{"a": 1.5}', "no integer"),
        (b'{"a": 1e3}', "no integer"),
        (b'{"a": NaN}', "no integer"),
        (b'{"a": Infinity}', "no integer"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "x\\u0000y"}', "NUL"),
        (b'{"a\\u0000": 1}', "NUL"),
        (b'\xff\xfe{"a": 1}', "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "nested deeper"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    ],
)
def test_refused(text: bytes, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        read_document(text, "doc")


def test_size() -> None:
    fits = b'{"a": "' + b"x" * (MAX_BYTES - 9) + b'"}'
    assert len(fits) == MAX_BYTES
    assert read_document(fits, "doc")
    with pytest.raises(ResourceExhaustedError):
        read_document(fits + b" ", "doc")


def test_depth() -> None:
    deep = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)
    assert read_document(deep, "doc")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(alphabet="abc\u20ac\n"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abc"), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(alphabet="abc"), VALUES))
def test_what_is_sound_is_read_as_it_is(value: dict[str, object]) -> None:
    assert read_document(json.dumps(value).encode(), "doc") == value


@given(st.binary(max_size=200))
def test_only_our_errors(data: bytes) -> None:
    with contextlib.suppress(ApiError):
        read_document(data, "doc")
