"""Whatever is put anywhere into a manifest, a group file or an image's documents: a policy or a one-line refusal."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parma_api.status import ApiError
from parma_tenant.denial import read_denial
from parma_tenant.diff import diff_policies
from parma_tenant.explain import explain, lines
from parma_tenant.generate.build import build_policy
from parma_tenant.generate.rego import render
from parma_tenant.generate.run import Wishes, read_groups
from parma_tenant.generate.written import read_policy
from parma_tenant.image.documents import parse_config, parse_index, parse_manifest
from parma_tenant.image.image import Image
from parma_tenant.image.reference import parse_reference
from parma_tenant.lint import _findings, _layer_findings, _profile_findings
from parma_tenant.profiles.profile import newest
from tests.unit.tenant.policy.test_analysis import POD

GROUP = {
    "containers": [
        {
            "name": "c",
            "image": "i",
            "command": ["x"],
            "args": ["y"],
            "env": [{"name": "A", "value": "1"}],
            "exec": [["z"]],
            "user": 1,
            "group": 2,
            "supplementalGroups": [3],
            "capabilities": {"add": ["X"], "drop": ["ALL"]},
            "privileged": False,
            "stdio": True,
            "workingDir": "/",
        }
    ],
    "allowPortForward": [80],
}
MANIFEST = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "c", "digest": "sha256:" + "a" * 64, "size": 3},
    "layers": [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": "sha256:" + "b" * 64,
            "size": 3,
            "platform": {"os": "linux"},
            "annotations": {"a": "b"},
        }
    ],
}
CONFIG = {
    "os": "linux",
    "architecture": "amd64",
    "rootfs": {"diff_ids": ["sha256:" + "c" * 64]},
    "config": {
        "Env": ["A=1"],
        "Cmd": ["x"],
        "Entrypoint": ["y"],
        "Volumes": {"/v": {}},
        "User": "u",
        "StopSignal": "9",
    },
}
DECISION = {
    "decision": {
        "reason_codes": ["process.command"],
        "input": {
            "rule": "create_container",
            "argList": ["x"],
            "envList": ["A=<<redacted>>"],
            "mounts": [{"source": "/x"}],
        },
        "reason": {
            "errors": ["e"],
            "error_objects": [{"container": "c", "differs": [{"check": "x"}], "variables": ["A"]}],
        },
    }
}

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 1 << 70),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["$(A)", "$(B_SERVICE_HOST)", "/x", "ALL", "RuntimeDefault", "\udcff", "a\nb"]),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=2),
    st.dictionaries(
        st.sampled_from(["name", "value", "exec", "x"]), st.text(max_size=3), max_size=2
    ),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def mutated(data: st.DataObject, document: Any) -> Any:
    copy = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(
            st.sampled_from(range(len(places(copy)))).map(lambda n: places(copy)[n])
        )
        container[key] = data.draw(_VALUES)
    return copy


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def plan(document: Any) -> None:
    """Up to the policy's text, but for images."""
    for _, group in read_groups([("f", encoded(document))], [], Wishes()):
        config = parse_config(
            encoded(CONFIG | {"rootfs": {"diff_ids": ["sha256:" + "c" * 64]}}), "i"
        )
        images = {
            spec.image: Image(str(parse_reference(spec.image)), None, config, ())
            for spec in group.containers
        }
        render(build_policy(group, images, {}).policy).encode()


def refused_in_one_line(error: ApiError) -> None:
    assert error.message
    assert "\n" not in error.message


@settings(max_examples=400, deadline=None)
@given(data=st.data(), document=st.sampled_from([POD, GROUP]))
def test_manifests_and_groups(data: st.DataObject, document: Any) -> None:
    try:
        plan(mutated(data, document))
    except ApiError as error:
        refused_in_one_line(error)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_documents_of_images(data: st.DataObject) -> None:
    for parse, document in (
        (parse_manifest, MANIFEST),
        (parse_config, CONFIG),
        (parse_index, {"manifests": MANIFEST["layers"]}),
    ):
        try:
            parse(encoded(mutated(data, document)), "i")
        except ApiError as error:
            refused_in_one_line(error)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_records(data: st.DataObject) -> None:
    policy = 'containers := [\n{"name": "c", "command": ["y"], "env_rules": [], "mounts": []},\n]\n'
    try:
        found = read_denial(json.dumps(mutated(data, DECISION)))
    except ApiError as error:
        refused_in_one_line(error)
        return
    for text in (None, policy):
        explanation = explain(found, text)
        json.dumps(explanation.to_json())
        lines(explanation, "p.rego")


WRITTEN: Any = {
    "name": "c",
    "layers": ["a"],
    "command": ["x"],
    "env_rules": [{"pattern": "A=1", "strategy": "re2", "required": False}],
    "mounts": [{"destination": "/", "source": "sandbox:///x", "type": "bind", "options": ["ro"]}],
    "exec_processes": [{"command": ["sh"], "signals": [9]}],
    "signals": [9],
    "user": {"user_idname": {"pattern": "", "strategy": "any"}},
    "allow_elevated": False,
}


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_policies_with_anything_in_their_containers(data: st.DataObject) -> None:
    container, rule = mutated(data, WRITTEN), mutated(data, {"env_rules": [{}], "mounts": [{}]})
    text = f"containers := [{json.dumps(container)}]\nplatform_rules := [{json.dumps(rule)}]\n"
    written = read_policy(text)
    list(_findings([entry.value for entry in written.containers]))
    list(_profile_findings(written, newest()))
    list(_layer_findings(written, {}))
    diff_policies(text, "containers := []")
    diff_policies(text, f"containers := [{json.dumps(WRITTEN)}]")
    explain(read_denial(json.dumps(DECISION)), text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='containers:=[]{}",\n\t #name12', max_size=80))
def test_any_text_is_read_as_a_policy(text: str) -> None:
    assert read_policy(text) is not None
    assert read_policy("containers := [" + text) is not None
