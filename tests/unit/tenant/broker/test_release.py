"""The grammar of release policies, wrapped keys, signed texts, trusted roots."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import DataLossError, InvalidArgumentError
from parma_tenant.claims.encoding import canonical_json, to_b64url
from parma_tenant.release import jws
from parma_tenant.release.grammar import ReleasePolicyError, parse_policy
from parma_tenant.release.keywrap import Wrapping, unwrap, wrap, wrapping_named
from parma_tenant.release.material import (
    KeyKind,
    KeyMaterial,
    KeyMaterialError,
    from_jwk,
    from_wrapped,
)
from parma_tenant.release.trust import read_roots

ISSUER = "https://broker.example"
CLAIMS = {
    "hostdata": "aa",
    "debug": False,
    "svn": 4,
    "text": "true",
    "runtime": {"user": {"name": "x"}, "svn": 9},
    "dotted.name": 1,
    "nothing": None,
}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def other() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def policy(*conditions: object, **more: object) -> bytes:
    authority = {"authority": ISSUER, "allOf": list(conditions)}
    return json.dumps({"version": "1.0.0", "anyOf": [authority], **more}).encode()


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"claim": "hostdata", "equals": "aa"}, True),
        ({"claim": "hostdata", "equals": "AA"}, False),
        ({"claim": "hostdata", "notEquals": "bb"}, True),
        ({"claim": "missing", "notEquals": "bb"}, False),
        ({"claim": "missing", "equals": "bb"}, False),
        ({"claim": "debug", "equals": False}, True),
        ({"claim": "debug", "equals": "false"}, False),
        ({"claim": "debug", "equals": 0}, False),
        ({"claim": "debug", "notEquals": "true"}, False),
        ({"claim": "text", "equals": True}, False),
        ({"claim": "text", "equals": "true"}, True),
        ({"claim": "svn", "equals": 4}, True),
        ({"claim": "svn", "equals": True}, False),
        ({"claim": "svn", "equals": "4"}, False),
        ({"claim": "svn", "less": 5}, True),
        ({"claim": "svn", "less": 4}, False),
        ({"claim": "svn", "lessOrEquals": 4}, True),
        ({"claim": "svn", "greater": 4}, False),
        ({"claim": "svn", "greaterOrEquals": 4}, True),
        ({"claim": "hostdata", "greater": 1}, False),
        ({"claim": "debug", "less": 1}, False),
        ({"claim": "svn", "exists": True}, True),
        ({"claim": "svn", "exists": False}, False),
        ({"claim": "missing", "exists": False}, True),
        ({"claim": "nothing", "exists": True}, False),
        ({"claim": "runtime.user.name", "equals": "x"}, True),
        ({"claim": "runtime.svn", "greater": 8}, True),
        ({"claim": "runtime.user.name.deeper", "exists": True}, False),
        ({"claim": "hostdata.length", "exists": True}, False),
        ({"claim": "dotted.name", "equals": 1}, True),
        ({"claim": "runtime", "equals": "x"}, False),
        ({"anyOf": [{"claim": "svn", "equals": 5}, {"claim": "svn", "equals": 4}]}, True),
        ({"allOf": [{"claim": "svn", "equals": 5}, {"claim": "svn", "equals": 4}]}, False),
    ],
)
def test_conditions(condition: dict[str, object], holds: bool) -> None:
    assert parse_policy(policy(condition)).allows(ISSUER, CLAIMS) is holds
    # joined with one that holds it decides, with one that does not it never helps
    good, bad = {"claim": "svn", "exists": True}, {"claim": "svn", "exists": False}
    assert parse_policy(policy(good, condition)).allows(ISSUER, CLAIMS) is holds
    assert not parse_policy(policy(bad, condition)).allows(ISSUER, CLAIMS)


def test_only_the_named_authority_counts() -> None:
    read = parse_policy(policy({"claim": "svn", "exists": True}))
    assert read.allows(ISSUER + "/", CLAIMS)
    for issuer in ("https://broker.example.evil", "http://broker.example", ""):
        assert not read.allows(issuer, CLAIMS)


GOOD = {"claim": "a", "equals": 1}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        policy(),
        policy(GOOD, version="2"),
        policy(GOOD, more=1),
        policy({"claim": "a"}),
        policy({"claim": "a", "equals": 1, "less": 2}),
        policy({"claim": "a", "equals": 1, "more": 2}),
        policy({"claim": "a", "is": 1}),
        policy({"claim": "", "equals": 1}),
        policy({"claim": 5, "equals": 1}),
        policy({"claim": "a" * 300, "equals": 1}),
        policy({"claim": "a", "equals": None}),
        policy({"claim": "a", "equals": [1]}),
        policy({"claim": "a", "less": "1"}),
        policy({"claim": "a", "less": True}),
        policy({"claim": "a", "exists": 1}),
        policy("a"),
        policy({"anyOf": []}),
        policy({"anyOf": [GOOD], "allOf": [GOOD]}),
        policy({"noneOf": [GOOD]}),
        policy(*[GOOD] * 600),
        policy(GOOD).replace(b'"authority": "https', b'"authority": "ftp'),
        policy(GOOD).replace(b'"authority"', b'"x"'),
        policy(GOOD, anyOf=[]),
        policy(GOOD, anyOf={}),
        b'{"version":"1.0.0","version":"1.0.0","anyOf":[]}',
        b" " * 70_000,
        policy({"claim": "a", "equals": 1}).replace(b"1}", b"NaN}"),
        policy({"claim": "a", "equals": 1}).replace(b": 1}", b": " + b"9" * 5000 + b"}"),
    ],
)
def test_what_is_no_policy(text: bytes) -> None:
    with pytest.raises(ReleasePolicyError) as caught:
        parse_policy(text)
    assert len(caught.value.message) < 200


def test_nesting_is_bounded() -> None:
    deep: dict[str, object] = GOOD
    for _ in range(20):
        deep = {"anyOf": [deep]}
    with pytest.raises(ReleasePolicyError):
        parse_policy(policy(deep))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["claim", "equals", "allOf", "anyOf", "exists", "x"]),
                inner,
                max_size=3,
            )
        ),
    )
)
def test_any_condition_is_read_or_refused(condition: object) -> None:
    try:
        read = parse_policy(policy(condition))
    except ReleasePolicyError:
        return
    assert read.allows(ISSUER, CLAIMS) in (True, False)


@pytest.mark.parametrize("wrapping", list(Wrapping))
def test_wrapped_keys_come_back(
    key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey, wrapping: Wrapping
) -> None:
    assert wrapping_named(str(wrapping)) is wrapping
    for secret in (b"x", b"k" * 32, b"p" * 2400):
        data = wrap(secret, key.public_key(), wrapping)
        assert secret == unwrap(data, key, wrapping)
        wrong = bytearray(data)
        for at in (0, 100, 255, 256, len(data) - 1):
            wrong[at] ^= 1
            with pytest.raises(DataLossError):
                unwrap(bytes(wrong), key, wrapping)
            wrong[at] ^= 1
        with pytest.raises(DataLossError):
            unwrap(data, other, wrapping)


def test_bounds_of_wrapped_keys(key: rsa.RSAPrivateKey) -> None:
    for secret in (b"", b"x" * 20_000):
        with pytest.raises(InvalidArgumentError):
            wrap(secret, key.public_key(), Wrapping.SHA256)
    for data in (b"", b"x" * 256, b"x" * 300_000):
        with pytest.raises(DataLossError):
            unwrap(data, key, Wrapping.SHA256)
    for name in (None, "RSA_AES_KEY_WRAP_512", 5):
        with pytest.raises(InvalidArgumentError):
            wrapping_named(name)


def test_signed_texts(key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey) -> None:
    text = jws.sign({"typ": "JWT"}, {"a": 1}, key)
    assert jws.verify(text, key.public_key()) == {"a": 1}
    assert jws.read_header(text) == {"alg": "RS256", "typ": "JWT"}
    with pytest.raises(jws.SignatureError):
        jws.verify(text, other.public_key())
    for at in range(0, len(text), 9):
        wrong = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises((jws.SignatureError, jws.JwsFormError)):
            jws.verify(wrong, key.public_key())


def test_the_algorithm_is_the_readers_choice(key: rsa.RSAPrivateKey) -> None:
    payload = to_b64url(b'{"a":1}')
    for header in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "RS256", "crit": ["x"]}, {}):
        text = f"{to_b64url(canonical_json(header))}.{payload}.{to_b64url(b'x' * 256)}"
        with pytest.raises(jws.JwsFormError):
            jws.verify(text, key.public_key())
    for text in ("", "a.b", "a.b.c.d", "..", f"{payload}.{payload}.=", "x" * 300_000, "é.é.é"):
        with pytest.raises(jws.JwsFormError):
            jws.verify(text, key.public_key())


def jwk_of(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    kind = KeyKind.RSA if isinstance(private, rsa.RSAPrivateKey) else KeyKind.EC
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return KeyMaterial(kind, der).to_jwk("https://vault/keys/k/1", ["decrypt"])


def test_keys_of_each_kind_come_back(key: rsa.RSAPrivateKey) -> None:
    curves = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    for private in (key, *(ec.generate_private_key(curve) for curve in curves)):
        jwk = jwk_of(private)
        material = from_jwk(jwk)
        again = load_der_private_key(material.data, None)
        assert again.private_numbers() == private.private_numbers()  # type: ignore[union-attr]
        assert from_jwk(jwk | {"kty": jwk["kty"] + "-HSM"}) == material
        assert from_wrapped(jwk["kty"], material.data) == material
    short = {name: jwk_of(key)[name] for name in ("kty", "n", "e", "d")}
    assert from_jwk(short).kind is KeyKind.RSA
    oct_key = from_jwk({"kty": "oct-HSM", "k": to_b64url(b"s" * 32)})
    assert oct_key.to_jwk("kid", [])["k"] == to_b64url(b"s" * 32)


def test_keys_that_are_none_and_none_is_quoted(key: rsa.RSAPrivateKey) -> None:
    good = jwk_of(key)
    curve = jwk_of(ec.generate_private_key(ec.SECP256R1()))
    canary = to_b64url(b"canary-secret-0123")
    for wrong in (
        {},
        {"kty": "dsa"},
        {"kty": ["RSA"]},
        {"kty": "oct", "k": to_b64url(b"short")},
        {"kty": "oct", "k": 5},
        {"kty": "oct", "k": to_b64url(b"x" * 600)},
        good | {"d": canary},
        good | {"p": canary},
        good | {"n": canary},
        good | {"e": to_b64url(b"\3")},
        good | {"n": ""},
        good | {"n": "A" * 20_000},
        {name: good[name] for name in ("kty", "n", "e")},
        curve | {"d": canary},
        curve | {"x": canary},
        curve | {"crv": "P-999"},
        curve | {"crv": None},
    ):
        with pytest.raises(KeyMaterialError) as caught:
            from_jwk(wrong)
        assert "canary" not in caught.value.message
        assert canary not in caught.value.message
    for kty, data in (("RSA", b"x"), ("EC", from_jwk(good).data), ("dsa", b""), (None, b"")):
        with pytest.raises(KeyMaterialError):
            from_wrapped(kty, data)


def test_material_does_not_show_itself() -> None:
    material = KeyMaterial(KeyKind.OCT, b"canary")
    assert "canary" not in repr(material)
    assert dataclasses.is_dataclass(material)


def test_roots_that_are_none() -> None:
    assert datetime.UTC
    for pem in (b"", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"):
        with pytest.raises(InvalidArgumentError):
            read_roots(pem)
