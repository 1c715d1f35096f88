"""YAML and JSON of strangers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_tenant.source.document import MAX_FILE, read_documents
from parma_tenant.source.errors import SourceError


def plain(text: str) -> list[Any]:
    return [node.plain() for node in read_documents(text.encode(), "f.yaml")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n---\n---\nb: x\n", [{"a": 1}, {"b": "x"}]),
        ("a: &x [1, 2]\nb: *x\n", [{"a": [1, 2], "b": [1, 2]}]),
        (
            "b: &x {c: 1, d: 2}\na: {<<: *x, c: 3}\n",
            [{"b": {"c": 1, "d": 2}, "a": {"c": 3, "d": 2}}],
        ),
        (
            "a: yes\nb: 0o17\nc: 017\nd: 1.5\ne: ~\n",
            [{"a": True, "b": "0o17", "c": 15, "d": 1.5, "e": None}],
        ),
        ("a: 2026-01-01\n", [{"a": "2026-01-01"}]),
        ('{"a": "\\ud83d\\ude00", "b": [1]}', [{"a": "\U0001f600", "b": [1]}]),
        ("{a: b}", [{"a": "b"}]),
        ("\ufeffa: 1\n", [{"a": 1}]),
    ],
)
def test_documents(text: str, expected: list[Any]) -> None:
    assert plain(text) == expected


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "unfolds to more than"),
        ("a: &a [*a]\n", "unfolds to more than"),
        ("[" * 5000, "too deep"),
        ('{"a":' * 100_000, "too deep"),
        ("{" * 5000, "nesting"),
        ("a: 1\na: 2\n", "f.yaml:2: 'a' stands twice"),
        ('{"a": 1, "a": 2}', "twice"),
        ("a: [1\nb: 2\n", "f.yaml:2:"),
        ("a: !x y\n", "f.yaml:1: the tag"),
        ("? [a]\n: b\n", "f.yaml:1: a key that is no text"),
        ("<<: 1\n", "only mappings"),
        ("a: \x00\n", "f.yaml"),
    ],
)
def test_refusals_are_one_line(text: str, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        plain(text)
    assert why in caught.value.message
    assert "\n" not in caught.value.message


def test_what_is_no_text_or_too_large() -> None:
    with pytest.raises(SourceError, match="not UTF-8"):
        read_documents(b"\xff\xfe\x00", "f")
    with pytest.raises(SourceError, match="larger than 8 MiB"):
        read_documents(b" " * (MAX_FILE + 1), "f")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n\t01~<", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = plain(text)
    except SourceError as error:
        assert "\n" not in error.message  # noqa: PT017
    else:
        assert isinstance(found, list)
