"""Metadata commands, snapshots, and the patch that follows them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.policy.metadata import (
    Metadata,
    MetadataError,
    canonical,
    parse_commands,
    patch,
    pointer,
)


def after(state: Metadata, *commands: dict[str, Any]) -> Metadata:
    return state.apply(parse_commands(list(commands)))


def command(
    name: str, action: str, key: str | None = None, value: Any = None, kind: str | None = None
) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "action": action, "value": value}
    made |= {"key": key} if key is not None else {}
    return made | ({"type": kind} if kind is not None else {})


EMPTY = Metadata({})
MAP = Metadata({"m": {"a": 1}, "s": [1]})


def test_initial_state_names_the_system() -> None:
    assert Metadata.initial().collections == {"operatingsystem": {"ostype": "linux"}}


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([command("m", "add", "b", 2)], {"m": {"a": 1, "b": 2}, "s": [1]}),
        ([command("m", "update", "a", 2)], {"m": {"a": 2}, "s": [1]}),
        ([command("m", "remove", "a")], {"m": {}, "s": [1]}),
        ([command("m", "remove", "nothing")], {"m": {"a": 1}, "s": [1]}),
        ([command("s", "add", None, 2, "set")], {"m": {"a": 1}, "s": [1, 2]}),
        ([command("s", "add", None, 1.0, "set")], {"m": {"a": 1}, "s": [1]}),
        ([command("s", "add", None, True, "set")], {"m": {"a": 1}, "s": [1, True]}),
        ([command("s", "remove", None, 1, "set")], {"m": {"a": 1}, "s": []}),
        ([command("s", "remove", None, 9, "set")], {"m": {"a": 1}, "s": [1]}),
        (
            [command("n", "add", "x", 1), command("n", "remove", "x")],
            {"m": {"a": 1}, "s": [1], "n": {}},
        ),
    ],
)
def test_commands(commands: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert after(MAP, *commands).collections == expected
    assert MAP.collections == {"m": {"a": 1}, "s": [1]}


@pytest.mark.parametrize(
    "broken",
    [
        [command("m", "add", "a", 1)],
        [command("m", "add", "x", 1), command("m", "add", "x", 2)],
        [command("m", "add", None, 1, "set")],
        [command("s", "add", "k", 1)],
        [command("s", "update", None, 1, "set")],
        [command("m", "rename", "a", 1)],
        [command("m", "add", None, 1)],
        [command("m", "add", "", 1)],
        [command("", "add", "a", 1)],
        [command("m", "add", "z", 1, "bag")],
        [{"name": "m", "action": "add", "key": "z"}],
        [{"name": "m", "action": ["add"], "key": "z", "value": 1}],
        [{"name": 1, "action": "add", "key": "z", "value": 1}],
        ["add"],
        {"name": "m"},
    ],
)
def test_commands_that_cannot_be_applied(broken: Any) -> None:
    with pytest.raises(MetadataError):
        MAP.apply(parse_commands(broken))


def test_narrowings_are_intersected() -> None:
    base = Metadata({"matches": {"c": [{"n": 1}, {"n": 2}, {"n": 3}]}})
    first = parse_commands([command("matches", "update", "c", [{"n": 1}, {"n": 2}])])
    second = parse_commands([command("matches", "update", "c", [{"n": 2}, {"n": 3}])])
    assert base.apply(first).rebase(base, second).collections["matches"] == {"c": [{"n": 2}]}
    gone = after(base, command("matches", "remove", "c"))
    assert gone.rebase(base, second).collections["matches"] == {}


def test_pointer_escapes_what_opa_decodes() -> None:
    assert pointer("m", "/run/a~b%2f") == "/m/~1run~1a~0b%252f"


def play_patch(document: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    for operation in operations:
        parts = [
            p.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            for p in operation["path"].split("/")[2:]
        ]
        place = document
        for part in parts[:-1]:
            place = place[part]
        if operation["op"] == "add":
            place[parts[-1]] = operation["value"]
        else:
            del place[parts[-1]]
    return document


names = st.sampled_from(["a", "b", "/x", "~", "%2f"])
states = st.dictionaries(
    names,
    st.one_of(
        st.dictionaries(names, st.integers(0, 2), max_size=3),
        st.lists(st.integers(), unique=True, max_size=3),
    ),
    max_size=4,
)


@given(states, states)
def test_patch_turns_one_state_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    import copy

    assert play_patch(copy.deepcopy(old), patch(Metadata(old), Metadata(new))) == new


def test_patch_does_not_grow_with_what_stayed() -> None:
    big = after(EMPTY, *[command("m", "add", str(i), {"v": i}) for i in range(1000)])
    assert (
        len(patch(big, after(big, command("m", "add", "new", 1), command("m", "remove", "7")))) == 2
    )
    assert patch(big, big) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c), max_leaves=8
    )
)
def test_canonical_is_a_function_of_the_value(value: Any) -> None:
    assert canonical(value) == canonical([value])[1:-1]
