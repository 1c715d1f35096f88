"""Cases that no vector decides. The root hashes are those of hcsshim v0.13.0's tar2ext4, built with Go 1.27.3."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from parma_api.layer import LayerImage

MIB = 1 << 20
FILLER = (b"a.filler", b"F" * 64)
"""Leaves 8 bytes in the inode, less than the smallest attribute takes: all others go to the block."""


def sparse(tars: ModuleType, name: bytes, size: int) -> bytes:
    """A file of `size` bytes that ends in "end" and is a hole before."""
    records = [
        (b"GNU.sparse.major", b"0"),
        (b"GNU.sparse.minor", b"1"),
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"1"),
        (b"GNU.sparse.map", b"%d,3" % (size - 3)),
    ]
    return bytes(tars.pax(records) + tars.header(name, b"0", 3) + tars.pad(b"end"))


def attributes(tars: ModuleType, names: list[bytes]) -> bytes:
    return bytes(tars.xattrs(FILLER, *((name, b"") for name in names)) + tars.file(b"f"))


def opaque(tars: ModuleType, *entries: bytes) -> bytes:
    return b"".join(entries) + bytes(tars.file(b"z/.wh..wh..opq"))


def global_header(tars: ModuleType, *records: tuple[bytes, bytes]) -> bytes:
    data = b"".join(tars.record(key, value) for key, value in records)
    return bytes(tars.header(b"glob", b"g", len(data)) + tars.pad(data) + tars.file(b"next", b"n"))


CASES: dict[str, tuple[Callable[[ModuleType], bytes], str]] = {
    "four extents": (
        lambda t: sparse(t, b"f", 512 * MIB),
        "7731232bc915dcdeea3b0e5f0327f1f7f1cfd2e8ef7c6e0461c2831ee1324ff6",
    ),
    "five extents: a leaf": (
        lambda t: sparse(t, b"f", 512 * MIB + 1),
        "36081a5e76865703d7011390e494dc4229f1e030b898d4458370cc39fd301602",
    ),
    "what follows a leaf": (
        lambda t: sparse(t, b"f", 601 * MIB) + t.file(b"g", b"behind"),
        "b042dbe1bc44a630be68be9816328b4ba408d64e2841148a68f4e015b85f4f40",
    ),
    "two groups": (
        lambda t: sparse(t, b"f", 127 * MIB) + sparse(t, b"g", 3 * MIB),
        "5c76881226d11e8d4214ba5da01861e8c60a4929942927773a6e165d78c2b9d7",
    ),
    "the largest file": (
        lambda t: sparse(t, b"f", 339 * 128 * MIB),
        "c3f3f04a82c02ae4ab9eb5303a7ca9af319bdfe6fc781d78a45dd03eb5339fd6",
    ),
    "200 attributes": (
        lambda t: attributes(t, [b"user.%03d" % i for i in range(200)]),
        "e4f4fbe6402be01a20dbb03271615864aef9598b9e54a0e97d175e44045e72c5",
    ),
    "60 that fall": (
        lambda t: attributes(t, [b"user.%c%s" % (65 + i, b"z" * (60 - i)) for i in range(60)]),
        "8885d6375b70f2ef1e1b6ea18b1f94022432d95d2057f2158c50429305fb7d58",
    ),
    "13 of several prefixes": (
        lambda t: attributes(
            t,
            [
                prefix + name
                for prefix in (
                    b"user.",
                    b"trusted.",
                    b"security.",
                    b"noprefix.",
                )
                for name in (b"zz", b"m", b"abc", b"c")
            ][:13],
        ),
        "6bdaf6ed2d87230d1d5ced851425de2a534230337f6dd3e3f24b3991abd0f796",
    ),
    "an L before a g is forgotten": (
        lambda t: t.gnu_long(b"L", b"lost") + global_header(t),
        "503c55b8536442ae3056e8e23b7f6ea029f2debc6de100cc6226ad5355ae2e8a",
    ),
    "a global header with path and attribute": (
        lambda t: global_header(t, (b"path", b"dir/named"), (b"SCHILY.xattr.user.k", b"v")),
        "525208f187ba4ad6f619238ace5eed587e9a39895ab3704dab93cac7eb9a37d8",
    ),
    "a global header with a bad number": (
        lambda t: global_header(t, (b"uid", b"x"), (b"SCHILY.xattr.user.k", b"v")),
        "503c55b8536442ae3056e8e23b7f6ea029f2debc6de100cc6226ad5355ae2e8a",
    ),
    "opaque: an empty file": (
        lambda t: opaque(t, t.xattrs((b"user.k", b"v")), t.file(b"z", mode=0o600, uid=3)),
        "60f30f9d9eb3864be41ad730ae6195e27156fcb90a14da1ba38f5d0506cf5277",
    ),
    "opaque: a link of two names": (
        lambda t: opaque(t, t.symlink(b"z", b"target"), t.hardlink(b"y", b"z")),
        "586959f62b354474ca051a143cf2f891f5425d77a4d652a35b938943245a9d99",
    ),
    "opaque: a device": (
        lambda t: opaque(t, t.header(b"z", b"3", major=5000, minor=70000)),
        "81fc0f49d248264dead10b21df91937dc18bb5848145c09533637ea144aa188b",
    ),
    "opaque: system.data in the inode": (
        lambda t: opaque(t, t.xattrs((b"system.data", b"x"), (b"user.z", b"1")), t.directory(b"z")),
        "2f542f147ba67fb97191032413d0f802c5eb6360feb7fcea7f67828948a9d069",
    ),
    "opaque: system.data in the block": (
        lambda t: opaque(
            t, t.xattrs((b"system.data", b"x" * 90), (b"user.z", b"1")), t.directory(b"z")
        ),
        "7b40e7465fa9734de08806a9df2948168bedbc752ee319e881a5150dcb5ddae9",
    ),
    "opaque: what follows an ACL is lost": (
        lambda t: opaque(
            t,
            t.xattrs((b"a.a", b"2"), (b"system.posix_acl_access", b"acl1"), (b"user.z", b"1")),
            t.directory(b"z"),
        ),
        "71322e996381bf1f6bd11538e94cf4c89bd563c126bed4ad29206c5b5aed8e1d",
    ),
    "a block rewritten for nothing": (
        lambda t: t.xattrs((b"user.k", b"v" * 100)) + t.file(b"z") + t.file(b"z", b"data"),
        "89ea983cc4b7e39303822dfad4401cfef61544f2b43cc4505755014d361ac10c",
    ),
    "5000 levels": (
        lambda t: t.pax(path=b"/".join([b"d"] * 5000) + b"/f") + t.file(b"x", b"y"),
        "62df28d0d10a2b9f7107e18b4f92ce6170d89df17e5c4a3389423a80923ca7c9",
    ),
    "a target of 200000 bytes": (
        lambda t: t.pax(linkpath=b"t" * 200000) + t.header(b"s", b"2"),
        "94e781811ee9184af86f457727839af7d2c1729efd159f8fd3cd581d94de35b1",
    ),
    "a directory mark by NUL and long name": (
        lambda t: t.gnu_long(b"L", b"dir/") + t.header(b"x", b"\0", 700),
        "176a946ff69d65b439bcb4acbf50accbc365f26ae1c6c53ef130019288cbf219",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_root_hash(case: str, tars: ModuleType, hashed: Callable[..., LayerImage]) -> None:
    make, root_hash = CASES[case]
    assert hashed(make(tars) + tars.END).root_hash == root_hash
