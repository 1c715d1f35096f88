"""Users and groups out of layers, and what else a scan of a layer finds."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_tenant.image.accounts import Who, accounts_of, resolve
from parma_tenant.image.errors import ImageError
from parma_tenant.image.scan import LayerFacts, Scanner, facts_of_json
from parma_tenant.image.signals import signal_number
from tests.unit.tenant.policy.kit import base_layer, tar_of


def scan(tar: bytes, piece: int = 1 << 20) -> LayerFacts:
    scanner = Scanner()
    for at in range(0, len(tar), piece):
        scanner.feed(tar[at : at + piece])
    return scanner.facts


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
    return info


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Who(0, (0,))),
        ("0", Who(0, (0,))),
        ("app", Who(1000, (1001, 50))),
        ("1000", Who(1000, (1001, 50))),
        ("app:logs", Who(1000, (50, 50))),
        ("1000:7", Who(1000, (7, 50))),
        ("77", Who(77, (0,))),
        ("77:app", Who(77, (1001,))),
    ],
)
def test_resolve(text: str, expected: Who) -> None:
    assert resolve(text, accounts_of([scan(base_layer())]), "i") == expected


@pytest.mark.parametrize("text", ["nobody", "app:nobody", "4294967295", "-1", "٣"])
def test_unknown_names(text: str) -> None:
    with pytest.raises(ImageError, match="is not in the image"):
        resolve(text, accounts_of([scan(base_layer())]), "i")


def test_the_topmost_layer_counts() -> None:
    other = scan(tar_of({"./etc/passwd": b"app:x:5:6::/:\n"}))
    assert resolve("app", accounts_of([scan(base_layer()), other]), "i") == Who(5, (6, 50))


@pytest.mark.parametrize("name", ["etc/.wh.passwd", ".wh.etc", "etc/.wh..wh..opq"])
def test_a_layer_that_takes_the_file_away(name: str) -> None:
    accounts = accounts_of([scan(base_layer()), scan(tar_of({name: b""}))])
    with pytest.raises(ImageError, match="is not in the image"):
        resolve("app", accounts, "i")
    assert resolve("1000", accounts, "i") in (Who(1000, (0,)), Who(1000, (0, 50)))


@pytest.mark.parametrize("name", ["etc/passwd", "etc"])
def test_a_link_in_its_place_is_not_followed(name: str) -> None:
    accounts = accounts_of([scan(base_layer()), scan(tar_of({}, link=link(name)))])
    assert resolve("app", accounts, "i") is None


def test_folders_that_are_implied_or_special() -> None:
    special = tarfile.TarInfo("tmp")
    special.type, special.mode = tarfile.DIRTYPE, 0o1777
    facts = scan(tar_of({"usr/bin/x": b""}, special=special))
    assert facts.implied == ["usr", "usr/bin"]
    assert facts.folders == {"tmp": (0o1777, 0, 0)}


@given(st.integers(1, 700))
def test_pieces_of_any_size_give_the_same(piece: int) -> None:
    tar = base_layer()
    assert scan(tar, piece) == scan(tar)


@given(st.binary(max_size=2000))
def test_rubbish_ends_the_scan_only(data: bytes) -> None:
    assert scan(base_layer()[:1024] + data).unclear == []


def test_facts_survive_the_cache() -> None:
    facts = scan(base_layer())
    assert facts.accounts
    assert facts_of_json(facts.to_json()) == facts


def test_long_names_and_pax_names() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("x" * 200 + "/y", b""), ("etc/group", b"g:x:9:\n")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    facts = scan(out.getvalue())
    assert facts.accounts == {"etc/group": "g:x:9:\n"}
    assert facts.implied == ["x" * 200, "etc"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("TERM", 15), ("sigquit", 3), ("3", 3), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMAX+1", None),
     ("SIGNOPE", None), ("0", None), ("65", None), ("-1", None), ("", None)],
)  # fmt: skip
def test_signals(text: str, number: int | None) -> None:
    assert signal_number(text) == number
