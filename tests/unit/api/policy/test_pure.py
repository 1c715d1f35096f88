"""Plain paths, input forms, reading of answers, seccomp documents, names of fragments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.policy.decision import PointRequest, PolicyDenied, PolicyInvalid
from parma_api.policy.engine import Versions
from parma_api.policy.fragment import NamespaceError, module_namespace
from parma_api.policy.inputs import FORMS, InputError, check_input
from parma_api.policy.paths import plain_input, plain_path
from parma_api.policy.points import Point
from parma_api.policy.seccomp_digest import canonical_profile, canonical_text
from parma_api.policy.verdict import read_answer
from parma_api.policy.versions import check_versions
from parma_api.status import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("/a/b", "/a/b"),
        ("//a///b/", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/../..", "/"),
        ("/", "/"),
        ("a/../b", "a/../b"),
        ("", ""),
        ("tmpfs", "tmpfs"),
        ("/a/..b", "/a/..b"),
    ],
)
def test_plain_path(text: str, plain: str) -> None:
    assert plain_path(text) == plain


@given(st.text(alphabet="/.ab", max_size=30))
def test_plain_form_is_stable_and_has_no_parts_to_climb(text: str) -> None:
    once = plain_path("/" + text)
    assert plain_path(once) == once
    assert not {"", ".", ".."} & set(once[1:].split("/")) or once == "/"


def test_plain_input_touches_paths_only() -> None:
    document = {
        "target": "/a//b", "layerPaths": ["/x/../y"], "argList": ["/a//b"], "workingDir": "/a/",
        "mounts": [{"source": "/s/../t", "destination": "/d//e"}, {"source": "proc", "destination": "/p"}],
    }  # fmt: skip
    assert plain_input(document) == {
        "target": "/a/b", "layerPaths": ["/y"], "argList": ["/a//b"], "workingDir": "/a/",
        "mounts": [{"source": "/t", "destination": "/d//e"}, {"source": "proc", "destination": "/p"}],
    }  # fmt: skip


def test_every_point_has_a_form() -> None:
    assert set(FORMS) == set(Point)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"unmountTarget": 1},
        {"unmountTarget": "/m", "more": 1},
        {"unmountTarget": "/m", "rule": "x"},
        {"unmountTarget": "\ud800"},
        {"unmountTarget": "x" * (2 << 20)},
    ],
)
def test_inputs_of_another_form(document: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        check_input(Point.UNMOUNT_DEVICE, document)


CAPS = {
    name: ["CAP_A", "CAP_B"]
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
}
CREATE = PointRequest(
    Point.CREATE_CONTAINER, {"envList": ["B=1", "A=1", "B=1"], "capabilities": CAPS}
)


def answer(**result: Any) -> dict[str, Any]:
    return {"generation": 1, "source": "policy", "results": [result], "reason": []}


def test_the_policy_can_only_take_away() -> None:
    kept = {**CAPS, "ambient": [], "bounding": ["CAP_NEVER", "CAP_B"]}
    result = answer(
        allowed=True, env_list=["A=1", "NEVER=1"], caps_list=kept, allow_stdio_access=True
    )
    found = read_answer(CREATE, result).decision
    assert found.env_list == ("A=1",)
    assert found.caps is not None
    assert (found.caps.bounding, found.caps.ambient) == (("CAP_B",), ())


def test_absent_lists_keep_what_was_asked_for_in_order() -> None:
    found = read_answer(CREATE, answer(allowed=True, allow_stdio_access=False)).decision
    assert found.env_list == ("B=1", "A=1")
    assert found.allow_stdio_access is False


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"allowed": 1}, "policy.bad_result"),
        ({"allowed": None}, "policy.bad_result"),
        ({"allowed": "true"}, "policy.bad_result"),
        ({}, "policy.bad_result"),
        ({"allowed": True}, "policy.bad_result"),
        ({"allowed": True, "allow_stdio_access": True, "env_list": "A=1"}, "policy.bad_result"),
        ({"allowed": True, "allow_stdio_access": True, "env_list": [1]}, "policy.bad_result"),
        ({"allowed": True, "allow_stdio_access": True, "caps_list": []}, "policy.bad_result"),
        (
            {"allowed": True, "allow_stdio_access": True, "caps_list": {"bounding": []}},
            "policy.bad_result",
        ),
        ({"allowed": True, "allow_stdio_access": True, "metadata": {}}, "policy.metadata_failed"),
        ({"allowed": False}, "policy.denied"),
        ({"allowed": False, "reason_codes": ["x.y", 3, "no code", "Z"]}, "x.y"),
    ],
)
def test_answers_that_are_no_clean_yes(result: dict[str, Any], code: str) -> None:
    with pytest.raises(PolicyDenied) as denied:
        read_answer(CREATE, answer(**result))
    assert denied.value.reason_codes == (code,)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"source": "unversioned", "results": []}, "policy.no_api_version"),
        ({"source": "missing", "results": []}, "policy.rule_missing"),
        ({"source": "default", "results": [{"allowed": False}]}, "policy.default_deny"),
        ({"source": "policy_default", "results": [{"allowed": False}]}, "policy.default_deny"),
        ({"results": [[]]}, "policy.bad_result"),
        ({"results": []}, "policy.bad_result"),
        ({"results": [{"allowed": True}, {"allowed": True}]}, "policy.bad_result"),
        ({"results": {"allowed": True}}, "policy.bad_result"),
    ],
)
def test_answers_without_a_result(changed: dict[str, Any], code: str) -> None:
    with pytest.raises(PolicyDenied) as denied:
        read_answer(CREATE, {**answer(allowed=True), **changed})
    assert denied.value.reason_codes == (code,)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"package  ok_1 \r\nx := 1", None),
        (b"package a.b\n", "fragment.namespace_invalid"),
        (b"package 1a\n", "fragment.namespace_invalid"),
        (b"package\n", "fragment.namespace_invalid"),
        (b"package\ta\n", "fragment.namespace_invalid"),
        (b"\npackage a\n", "fragment.namespace_invalid"),
        (b"package a # b\n", "fragment.namespace_invalid"),
        (b"package \xc3\xa4\n", "fragment.namespace_invalid"),
        (b"package system\n", "fragment.namespace_reserved"),
        (b"package gate_state\n", "fragment.namespace_reserved"),
        (b"package fragment_values\n", "fragment.namespace_reserved"),
        (b"package defaultMounts\n", "fragment.namespace_reserved"),
        (b"package Framework\n", None),
    ],
)
def test_names_of_fragments(line: bytes, code: str | None) -> None:
    if code is None:
        assert module_namespace(line)
        return
    with pytest.raises(NamespaceError) as refused:
        module_namespace(line)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("api", "framework", "code"),
    [
        (None, None, None),
        ("0.1.0", "0.5.0", None),
        ("0.12.1", None, "api.version_ahead"),
        ("1.0.0", None, "api.version_ahead"),
        (12, None, "api.version_invalid"),
        ("0.12.0", "0.10.0", "framework.version_ahead"),
        ("0.12.0", "latest", "framework.version_invalid"),
    ],
)
def test_versions(api: object, framework: object, code: str | None) -> None:
    if code is None:
        check_versions(Versions(api, framework))
        return
    with pytest.raises(PolicyInvalid) as refused:
        check_versions(Versions(api, framework))
    assert refused.value.reason_codes == (code,)


@pytest.mark.parametrize(
    "profile",
    [
        [], "x", {"defaultAction": 1}, {"syscalls": {}}, {"syscalls": [1]}, {"flags": [1]},
        {"defaultErrnoRet": 1.5}, {"defaultErrnoRet": -1}, {"defaultErrnoRet": True},
        {"syscalls": [{"names": ["a"], "action": "A", "args": [{"value": 1 << 64}]}]},
    ],
)  # fmt: skip
def test_seccomp_documents_of_another_form(profile: object) -> None:
    with pytest.raises(InvalidArgumentError):
        canonical_text(profile)


def test_what_is_put_in_force_is_what_was_hashed() -> None:
    profile = {
        "defaultAction": "A",
        "listenerPath": "",
        "syscalls": [{"names": ["read"], "action": "B", "comment": "x"}],
    }
    assert canonical_profile(profile) == {
        "defaultAction": "A",
        "syscalls": [{"names": ["read"], "action": "B"}],
    }
    assert canonical_profile(None) is None


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """The agent's first answer must not wait for the client's second of imports, nor for cryptography."""
    import subprocess
    import sys

    heavy = "aiohttp", "opa_client", "requests", "cbor2", "cryptography", "click"
    script = (
        "import sys, parma_api.policy.gate, parma_api.policy.opa\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
