"""Sealed messages: only the group opens them, once; only it answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import ResourceExhaustedError
from parma_tenant.claims import sealing
from parma_tenant.claims.sealing import SealError, SealingKey, seal_request
from parma_tenant.claims.server import SealingKeys

KEY = SealingKey.generate()


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_round_trip(payload: bytes, answer: bytes) -> None:
    request, opener = seal_request(KEY.public, payload)
    opened, sealer = KEY.open(request)
    assert opened == payload
    assert opener.open(sealer.seal(answer)) == answer


def test_nothing_shows_through() -> None:
    request, opener = seal_request(KEY.public, b"canary-secret")
    assert b"canary-secret" not in request
    assert "canary" not in repr(opener)


def test_a_request_is_opened_once_and_answered_once() -> None:
    request, _ = seal_request(KEY.public, b"pay 5")
    _, sealer = KEY.open(request)
    with pytest.raises(SealError, match="replay"):
        KEY.open(request)
    sealer.seal(b"paid")
    with pytest.raises(SealError, match="one response"):
        sealer.seal(b"paid again")


def test_a_changed_byte_anywhere_is_refused() -> None:
    request, opener = seal_request(KEY.public, b"x")
    for at in range(len(request)):
        wrong = bytearray(request)
        wrong[at] ^= 0x80
        with pytest.raises(SealError):
            KEY.open(bytes(wrong))
    _, sealer = KEY.open(request)
    response = sealer.seal(b"y")
    for at in range(len(response)):
        wrong = bytearray(response)
        wrong[at] ^= 1
        with pytest.raises(SealError):
            opener.open(bytes(wrong))
    assert opener.open(response) == b"y"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SealError):
        KEY.open(data)
    with pytest.raises(SealError):
        KEY.open(KEY.id + data)


def test_another_key_and_another_request_open_nothing() -> None:
    request, _ = seal_request(KEY.public, b"x")
    with pytest.raises(SealError, match="another key"):
        SealingKey.generate().open(request)
    _, first = KEY.open(request)
    _, other = seal_request(KEY.public, b"x")
    with pytest.raises(SealError):
        other.open(first.seal(b"swapped"))


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_PAYLOAD", 10)
    monkeypatch.setattr(sealing, "_MAX_REQUESTS", 1)
    with pytest.raises(SealError, match="at most 10"):
        seal_request(KEY.public, b"x" * 11)
    key = SealingKey.generate()
    key.open(seal_request(key.public, b"1")[0])
    with pytest.raises(ResourceExhaustedError):
        key.open(seal_request(key.public, b"2")[0])
    with pytest.raises(SealError):
        seal_request(key.public, b"3")[1].open(b"x" * 27)


def test_keys_of_sessions_end() -> None:
    now = [0.0]
    keys = SealingKeys(lifetime=60, limit=2, clock=lambda: now[0])
    made = [SealingKey.generate() for _ in range(3)]
    for key in made:
        keys.add(key)
    with pytest.raises(SealError, match="attest again"):
        keys.open(seal_request(made[0].public, b"x")[0])
    assert keys.open(seal_request(made[1].public, b"x")[0])[0] == b"x"
    now[0] = 61
    with pytest.raises(SealError, match="attest again"):
        keys.open(seal_request(made[2].public, b"x")[0])
