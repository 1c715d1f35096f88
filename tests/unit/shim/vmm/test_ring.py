"""The bounded tails of console and stderr."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parma_shim.vmm.ring import LINE_LIMIT, Ring, clean


@given(st.lists(st.binary(max_size=300)))
def test_whatever_is_fed_is_bounded_and_printable(chunks: list[bytes]) -> None:
    ring = Ring(200)
    for chunk in chunks:
        for line in ring.feed(chunk):
            assert line.isprintable()
            assert 0 < len(line) <= LINE_LIMIT
    assert ring.total == sum(map(len, chunks))
    assert len(ring.tail().encode("utf-8", "surrogatepass")) <= 3 * 200


def test_lines_arrive_once_however_they_are_cut() -> None:
    text = b"one\r\ntwo\n\n\x1b[31mthree\n"
    whole = Ring(100).feed(text)
    ring = Ring(100)
    assert (
        [line for byte in text for line in ring.feed(bytes([byte]))]
        == whole
        == ["one", "two", "[31mthree"]
    )
    assert ring.last_line() == "[31mthree"


def test_the_oldest_is_lost_first() -> None:
    ring = Ring(8)
    ring.feed(b"aaaa\nbbbb\ncccc")
    assert ring.tail() == "bbb\ncccc"


def test_a_line_without_an_end_is_cut() -> None:
    assert Ring(10).feed(b"x" * (LINE_LIMIT + 1)) == ["x" * LINE_LIMIT]


def test_clean() -> None:
    assert clean(b"\xff\x00a\tb\n", 3) == "\N{REPLACEMENT CHARACTER} a"
