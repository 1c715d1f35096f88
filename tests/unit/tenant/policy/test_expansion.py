"""`$(NAME)` as kubelet expands it (the cases are those of its documentation and its tests' kinds)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_tenant.source.expansion import Text, escaped, expand

KNOWN = {
    "A": Text.known("x"),
    "B": Text.known(""),
    "IP": Text.unknown("[0-9.]+", "10.0.0.1"),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "x"), ("a$(A)b$(A)", "axbx"), ("$(B)", ""), ("$(C)", "$(C)"), ("$$(A)", "$(A)"), ("$$$(A)", "$x"),
        ("$$$$(A)", "$$(A)"), ("$A", "$A"), ("$", "$"), ("a$", "a$"), ("$$", "$"), ("$(A", "$(A"), ("$()", "$()"),
        ("$(A))", "x)"), ("$($(A))", "$($(A))"), ("$(A)$(C)$(B)z", "x$(C)z"), ("${A}", "${A}"), ("", ""),
    ],
)  # fmt: skip
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, KNOWN.get).literal == expected


def test_what_only_the_cluster_knows_becomes_a_pattern() -> None:
    found = expand("http://$(IP).x:$(A)/", KNOWN.get)
    assert found.literal is None
    assert found.pattern == r"http://[0-9.]+\.x:x/"
    assert found.example == "http://10.0.0.1.x:x/"


@given(st.text())
def test_escaped_matches_exactly_the_text(text: str) -> None:
    assert re.fullmatch(escaped(text), text) is not None
    assert re.fullmatch(escaped(text), text + "x") is None


@given(st.text(alphabet="$()AB", max_size=12))
def test_expansion_without_variables_only_shrinks_dollars(text: str) -> None:
    done = expand(text, lambda _name: None).literal
    assert done is not None
    assert done.replace("$", "") == text.replace("$", "")
