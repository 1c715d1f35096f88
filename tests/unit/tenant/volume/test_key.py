"""A volume's key: 88 bytes that say all, and nothing else is a key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block.integrity import BLOCK
from parma_api.ids import RootHash
from parma_tenant.release.material import from_jwk
from parma_tenant.volume.key import (
    MAX_BLOCKS,
    MIN_WRITABLE,
    SIZE,
    Kind,
    VolumeKey,
    VolumeKeyError,
    decode,
    hkdf,
)
from parma_tenant.volume.release import key_from_jwk, key_to_jwk

SECRET = bytes(range(1, 33))
READ_ONLY = VolumeKey(Kind.READ_ONLY, 300, RootHash("ab" * 32), SECRET)
READ_WRITE = VolumeKey(Kind.READ_WRITE, MIN_WRITABLE, None, SECRET)
LARGE = VolumeKey(Kind.READ_ONLY, MIN_WRITABLE, RootHash("ab" * 32), SECRET)
KEYS = (READ_ONLY, READ_WRITE)


@pytest.mark.parametrize("key", KEYS)
def test_round_trip(key: VolumeKey) -> None:
    assert len(key.encode()) == SIZE == 88
    assert decode(key.encode()) == key
    assert key_from_jwk(key_to_jwk(key)) == key


def test_the_bytes_are_the_documented_ones() -> None:
    head = b"parmavol" + bytes([1, 1]) + bytes(6) + (300).to_bytes(8, "little")
    assert READ_ONLY.encode() == head + b"\xab" * 32 + SECRET


@pytest.mark.parametrize("key", KEYS)
def test_a_broker_takes_it_as_an_oct_key(key: VolumeKey) -> None:
    assert from_jwk(key_to_jwk(key)).data == key.encode()


def test_what_is_shown_of_a_key_is_no_secret() -> None:
    assert SECRET.hex() not in repr(READ_ONLY)
    assert repr(SECRET) not in repr(READ_ONLY)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("at", [*range(10), 10, 15])
def test_every_byte_of_the_head_counts(key: VolumeKey, at: int) -> None:
    data = bytearray(key.encode())
    data[at] ^= 0x40
    with pytest.raises(VolumeKeyError):
        decode(bytes(data))


def test_the_other_kind_is_another_key() -> None:
    for key, kind in ((LARGE, 2), (READ_WRITE, 1)):
        data = bytearray(key.encode())
        data[9] = kind
        with pytest.raises(VolumeKeyError, match="root hash"):
            decode(bytes(data))


@pytest.mark.parametrize("size", [0, 32, 87, 89, 96])
def test_another_length(size: int) -> None:
    with pytest.raises(VolumeKeyError, match="has 88 bytes"):
        decode(bytes(size))


@given(st.binary(min_size=SIZE, max_size=SIZE))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(VolumeKeyError):
        decode(data)


@pytest.mark.parametrize(
    ("kind", "blocks", "root", "secret"),
    [
        (Kind.READ_ONLY, 1, "ab" * 32, SECRET),
        (Kind.READ_ONLY, MAX_BLOCKS + 1, "ab" * 32, SECRET),
        (Kind.READ_WRITE, MIN_WRITABLE - 1, None, SECRET),
        (Kind.READ_ONLY, 300, None, SECRET),
        (Kind.READ_WRITE, MIN_WRITABLE, "ab" * 32, SECRET),
        (Kind.READ_ONLY, 300, "ab" * 32, bytes(32)),
        (Kind.READ_ONLY, 300, "ab" * 32, SECRET[:31]),
    ],
)
def test_what_no_key_can_be(kind: Kind, blocks: int, root: str | None, secret: bytes) -> None:
    with pytest.raises(VolumeKeyError):
        VolumeKey(kind, blocks, None if root is None else RootHash(root), secret)


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=40), st.integers(1, 200))
def test_hkdf_is_the_librarys(secret: bytes, info: bytes, size: int) -> None:
    assert hkdf(secret, info, size) == HKDF(SHA256(), size, None, info).derive(secret)


def test_hkdf_of_the_standard() -> None:
    """RFC 5869, appendix A.3."""
    wanted = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf(b"\x0b" * 22, b"", 42).hex() == wanted


def test_keys_of_the_cipher() -> None:
    """Fixed: a change makes every volume unreadable."""
    for key, size in ((READ_ONLY, 64), (READ_WRITE, 96)):
        info = b"parma volume 1 " + {64: b"read-only", 96: b"read-write"}[size]
        assert key.cipher_key() == HKDF(SHA256(), size, None, info).derive(SECRET)


def test_sizes() -> None:
    assert READ_ONLY.blob_size == (300 + 1 + 3 + 1) * BLOCK
    assert READ_ONLY.data_sectors == 300 * 8
    assert READ_WRITE.blob_size == 16 << 20
    assert READ_WRITE.data_sectors < (16 << 20) // 512


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "RSA", "k": "AA"},
        {"kty": "oct"},
        {"kty": "oct", "k": 7},
        {"kty": "oct", "k": "?"},
        {"kty": "oct", "k": "A" * 2000},
        {"kty": "oct", "k": "AAAA"},
    ],
)
def test_a_jwk_that_is_no_volumes(jwk: dict[str, object]) -> None:
    with pytest.raises(VolumeKeyError) as caught:
        key_from_jwk(jwk)
    assert "AAAA" not in caught.value.message


def test_a_vaults_hsm_names_it_otherwise() -> None:
    assert key_from_jwk(key_to_jwk(READ_ONLY) | {"kty": "oct-HSM"}) == READ_ONLY
