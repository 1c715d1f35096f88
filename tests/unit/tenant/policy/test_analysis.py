"""simulate --pod, lint, explain and diff over generated policies, with the real OPA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_api.policy.refusal import decision_text
from parma_api.status import Code, RemoteError
from parma_shim.sandbox.denial import Denials
from parma_tenant.denial import read_denial
from parma_tenant.diff import diff_policies
from parma_tenant.explain import explain, lines
from parma_tenant.generate.rules import env_admitted, fits, mount_admitted
from parma_tenant.generate.written import read_policy
from parma_tenant.image.hashing import HashCache, default_cache
from parma_tenant.image.scan import LayerFacts
from parma_tenant.lint import _layer_findings
from parma_tenant.profiles.profile import Profile, available, folders, load_profile, newest
from parma_tenant.source.errors import SourceError
from tests.unit.tenant.policy.conftest import Caller
from tests.unit.tenant.policy.kit import Blobs, base_layer, simple_archive, tar_of

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {
        "enableServiceLinks": False,
        "volumes": [{"name": "data"}, {"name": "conf", "configMap": {"name": "x"}}],
        "initContainers": [{"name": "init", "image": "app:1", "command": ["true"]}],
        "containers": [
            {
                "name": "web",
                "image": "app:1",
                "args": ["serve"],
                "env": [
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "URL", "value": "http://$(IP)/"},
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "conf", "mountPath": "/a.b", "subPath": "a.b"},
                ],
                "livenessProbe": {"exec": {"command": ["check"]}},
                "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": False},
            }
        ],
    },
}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def files(tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """The pod, its policy, the archive of its image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = simple_archive(tmp_path / "a.tar", User="app")
    pod, policy = write(tmp_path / "pod.json", POD), tmp_path / "p.rego"
    done = call(
        "generate",
        pod,
        "--archive",
        archive,
        "--output",
        policy,
        "--allow-exec",
        "web=sh",
        "--allow-port-forward",
        80,
    )
    assert done.exit_code == 0, done.stderr
    return pod, policy, archive


def changed(path: Path, change: dict[str, Any]) -> Path:
    document = json.loads(json.dumps(POD))
    document["spec"]["containers"][0].update(change)
    return write(path, document)


def test_the_life_of_a_pod_is_allowed_by_its_own_policy(
    files: tuple[Path, Path, Path], call: Caller
) -> None:
    pod, policy, archive = files
    done = call("simulate", "--policy", policy, "--pod", pod, "--archive", archive, "--json")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step for step in steps if not step["allowed"]] == []
    assert done.exit_code == 0
    points = {step["point"] for step in steps}
    assert {
        "create_container",
        "exec_in_container",
        "signal_container_process",
        "unmount_device",
    } <= points


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"args": ["other"]}, "process.command"),
        ({"env": [{"name": "MORE", "value": "x"}]}, "process.env"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/elsewhere"}]}, "process.mounts"),
        ({"workingDir": "/tmp"}, "process.working_dir"),
        ({"securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": False}}, "process.user"),
        ({"securityContext": {"runAsUser": 1000}}, "process.no_single_candidate"),
        ({"livenessProbe": {"exec": {"command": ["other"]}}}, "process.command"),
    ],
)
def test_a_pod_that_asks_for_more_is_denied(
    change: dict[str, Any], code: str, files: tuple[Path, Path, Path], call: Caller, tmp_path: Path
) -> None:
    _, policy, archive = files
    other = changed(tmp_path / "other.json", change)
    done = call("simulate", "--policy", policy, "--pod", other, "--archive", archive)
    assert done.exit_code == 1
    assert code in done.stdout


def test_simulate_needs_one_of_both(files: tuple[Path, Path, Path], call: Caller) -> None:
    pod, policy, _ = files
    assert call("simulate", "--policy", policy).exit_code == 2
    assert call("simulate", "--policy", policy, "--pod", pod, "--steps", pod).exit_code == 2


def test_lint_names_what_is_wide_and_what_is_lacking(
    files: tuple[Path, Path, Path], call: Caller
) -> None:
    _, policy, _ = files
    done = call("lint", policy, "--json")
    found = json.loads(done.stdout)
    texts = {finding["text"] for finding in found if finding["level"] == "warning"}
    assert "a shell may be run in it: sh" in texts
    assert "the host may connect to port 80 of the pod's loopback" in texts
    notes = [finding["text"] for finding in found if finding["level"] == "note"]
    assert sorted(note.split()[5] for note in notes) == ["aci@2026.9", "aks@2026.1", "eks@2026.1"]
    named = json.loads(call("lint", policy, "--json", "--profile", "eks").stdout)
    assert any(
        finding["level"] == "warning" and "AWS_ROLE_ARN" in finding["text"] for finding in named
    )


def test_lint_knows_folders_that_change_their_mode() -> None:
    facts = {
        "a": LayerFacts(folders={"tmp": (0o1777, 0, 0)}),
        "b": LayerFacts(implied=["tmp"]),
        "c": LayerFacts(implied=["usr"]),
    }
    text = 'containers := [{"name": "x", "layers": ["a", "LAST"]}]\n'
    [finding] = _layer_findings(read_policy(text.replace("LAST", "b")), facts)
    assert finding.text.startswith("/tmp is 1777 0:0 under an ordinary runtime")
    assert list(_layer_findings(read_policy(text.replace("LAST", "c")), facts)) == []


def test_facts_of_layers_are_found_by_root_hash(files: tuple[Path, Path, Path]) -> None:
    _, policy, _ = files
    [root] = read_policy(policy.read_text()).containers[0].value["layers"]
    assert "root" in (HashCache(default_cache()).by_root()[root].accounts["etc/passwd"] or "")


def denial(point: str, codes: tuple[str, ...], **request: object) -> str:
    return decision_text(point, codes, request, {"errors": ["x"], "error_objects": None}, None)


def request(**changes: object) -> dict[str, object]:
    return {
        "argList": ["/bin/sh", "serve"],
        "envList": ["PATH=/bin", "HOSTNAME=x"],
        "workingDir": "/",
        "noNewPrivileges": True,
        "privileged": False,
        "seccompProfileSHA256": "",
        "mounts": [],
        **changes,
    }


def test_explain_names_container_difference_and_line(
    files: tuple[Path, Path, Path], call: Caller, tmp_path: Path
) -> None:
    _, policy, _ = files
    text = policy.read_text()
    record = tmp_path / "record.json"
    decision = read_json(
        denial("create_container", ("process.command",), **request(argList=["/bin/sh", "other"]))
    )
    record.write_text(
        json.dumps(
            {"message": "create_container denied by policy: process.command", "decision": decision}
        )
    )
    done = call("explain", record, "--policy", policy, "--json")
    found = json.loads(done.stdout)
    assert found["container"] == "web"
    assert found["differences"][0]["expected"] == ["/bin/sh", "serve"]
    assert '"command": ["/bin/sh", "serve"]' in text.splitlines()[found["line"] - 1]
    shown = call("explain", record, "--policy", policy).stdout
    assert f"p.rego:{found['line']}" in shown


def read_json(text: str) -> object:
    from parma_api.policy.refusal import parse_decision

    return parse_decision(text)


@pytest.mark.parametrize(
    ("codes", "changes", "what", "member"),
    [
        (
            ("process.env",),
            {"envList": ["LD_PRELOAD=x", "URL=http://1/"]},
            "process.env",
            "env_rules",
        ),
        (("process.working_dir",), {"workingDir": "/x"}, "process.working_dir", "working_dir"),
        (("process.privileged",), {"privileged": True}, "process.privileged", "allow_elevated"),
        (
            ("process.seccomp",),
            {"seccompProfileSHA256": "a"},
            "process.seccomp",
            "seccomp_profile_sha256",
        ),
        (("process.user",), {"user": {"id": "5"}}, "process.user", "user"),
        (
            ("process.no_new_privileges",),
            {"noNewPrivileges": False},
            "process.no_new_privileges",
            "no_new_privileges",
        ),
        (
            ("process.mounts",),
            {
                "mounts": [
                    {
                        "source": "/run/x/sandboxMounts/volumes/empty-dir/other",
                        "destination": "/data",
                        "type": "bind",
                        "options": ["rbind", "rprivate", "rw"],
                    }
                ]
            },
            "process.mounts",
            "mounts",
        ),
    ],
)
def test_explain_each_check(
    codes: tuple[str, ...],
    changes: dict[str, object],
    what: str,
    member: str,
    files: tuple[Path, Path, Path],
) -> None:
    text = files[1].read_text()
    found = explain(read_denial(denial("create_container", codes, **request(**changes))), text)
    assert found.container == "web"
    [difference] = found.differences
    assert difference.what == what
    assert f'"{member}":' in text.splitlines()[difference.line - 1]


def test_a_mount_that_fits_is_no_difference(files: tuple[Path, Path, Path]) -> None:
    mount = {
        "source": "/run/gcs/c/p/sandboxMounts/volumes/empty-dir/data",
        "destination": "/data",
        "type": "bind",
        "options": ["rw", "rbind", "rprivate"],
    }
    text = denial("create_container", ("process.env",), **request(mounts=[mount], envList=["X=1"]))
    found = explain(read_denial(text), files[1].read_text())
    assert [difference.what for difference in found.differences] == ["process.env"]


@pytest.mark.parametrize(
    "text",
    [
        "Error: failed to create containerd task: create_container denied by policy: process.command, process.env",
        'time="x" msg="create_container denied by policy: process.command, process.env\\nnearest: web; ..."',
        json.dumps(
            {
                "message": "create_container denied by policy: process.command, process.env\nnearest: web; a"
            }
        ),
        denial("create_container", ("process.command", "process.env"), **request()),
    ],
)
def test_denials_in_every_form(text: str) -> None:
    found = read_denial(text)
    assert found.point == "create_container"
    assert found.codes == ("process.command", "process.env")
    assert (
        lines(explain(found), None)[0]
        == "create_container was denied: process.command, process.env"
    )


def test_an_error_text_leads_to_its_record(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(
        json.dumps(
            {"decision": {"reason_codes": ["flag.off"], "input": {"rule": "get_properties"}}}
        )
    )
    found = read_denial(
        "get_properties denied by policy: flag.off\nexplain: parma policy explain r.json", tmp_path
    )
    assert found.request == {"rule": "get_properties"}


def test_what_the_shim_prints_leads_to_its_own_record(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    text = denial("create_container", ("process.command",), **request(argList=["/bin/sh", "x"]))
    shown = Denials(tmp_path / "denials", "pod").explained(
        RemoteError(Code.PERMISSION_DENIED, text)
    )
    assert shown.message.count("\n") == 2
    for form in (shown.message, shown.message.replace("\n", "\\n")):
        found = explain(read_denial(f"Error: {form}", tmp_path), files[1].read_text())
        assert (found.container, found.differences[0].got) == ("web", ["/bin/sh", "x"])


def test_a_value_that_no_rule_admits_leads_to_the_rules(files: tuple[Path, Path, Path]) -> None:
    text = files[1].read_text()
    found = explain(read_denial(denial("create_container", ("process.env",), **request())), text)
    assert found.container == "web"
    assert '"env_rules":' in text.splitlines()[found.line - 1]


def test_explain_finds_flags_and_ports(files: tuple[Path, Path, Path]) -> None:
    text = files[1].read_text()
    for point, code, line in (
        ("dump_stacks", "flag.off", "allow_dump_stacks := false"),
        ("port_forward", "port.not_allowed", "allow_port_forward := ["),
        ("load_fragment", "fragment.issuer", "load_fragment := data.framework.load_fragment"),
    ):
        found = explain(read_denial(denial(point, (code,))), text)
        assert text.splitlines()[found.line - 1] == line


def test_explain_without_policy_uses_the_record() -> None:
    decision = {
        "reason_codes": ["process.command"],
        "input": {"rule": "create_container"},
        "reason": {
            "error_objects": [
                {
                    "container": "web",
                    "differs": [{"check": "process.command", "expected": ["a"], "got": ["b"]}],
                    "variables": ["X=<<redacted>>"],
                }
            ]
        },
    }
    found = explain(read_denial(json.dumps({"decision": decision})))
    assert found.container == "web"
    assert [(d.what, d.got) for d in found.differences] == [
        ("process.command", ["b"]),
        ("process.env", ["X=<<redacted>>"]),
    ]


@pytest.mark.parametrize(
    "text", ["", "no denial", "{", "[1]", '{"decision": 5}', "x denied by policy: y"]
)
def test_explain_says_what_is_no_denial(text: str, call: Caller, tmp_path: Path) -> None:
    (tmp_path / "d").write_text(text)
    done = call("explain", tmp_path / "d")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_diff(files: tuple[Path, Path, Path], call: Caller, tmp_path: Path) -> None:
    _, policy, archive = files
    other = tmp_path / "o.rego"
    pod = changed(
        tmp_path / "other.json",
        {"args": ["other"], "env": [], "securityContext": {"runAsUser": 1000}},
    )
    done = call("generate", pod, "--archive", archive, "--output", other, "--allow-dropping")
    assert done.exit_code == 0, done.stderr
    assert call("diff", policy, policy).exit_code == 0
    assert call("diff", policy, policy).stdout == ""
    found = call("diff", policy, other, "--json")
    assert found.exit_code == 1
    changes = {
        (c["side"], c["where"], c["what"], json.dumps(c["value"])) for c in json.loads(found.stdout)
    }
    assert ("-", "web", "command", '["/bin/sh", "serve"]') in changes
    assert ("+", "web", "command", '["/bin/sh", "other"]') in changes
    assert ("-", "policy", "allow_port_forward", "80") in changes
    assert ("+", "policy", "allow_environment_variable_dropping", '"allowed"') in changes
    assert ("+", "web", "new privileges", '"allowed"') in changes
    assert any(side == "-" and what == "exec_processes" for side, _, what, _ in changes)
    assert not any(where == "init" for _, where, _, _ in changes)
    swapped = diff_policies(other.read_text(), policy.read_text())
    assert len(swapped) == len(changes)


def test_diff_of_foreign_texts() -> None:
    aci = (
        'package policy\ncontainers := [\n  {"id": "x", "layers": ["a"], "command": ["c"]}\n]\n'
        'reason := {"errors": data.framework.errors}\n'
    )
    assert [str(change) for change in diff_policies(aci, "package policy\n")] == [
        '- x: container: ["c"]',
        '- policy: reason: {"errors": data.framework.errors}',
    ]


def test_written_policies_with_and_without_trailing_commas() -> None:
    text = 'a := 1\ncontainers = [\n{"name": "x, ]", "command": ["a",],},\n  {"name": "y",\n "mounts": []}]\n'
    first, second = read_policy(text).containers
    assert (first.title, first.line, first.value["command"]) == ("x, ]", 3, ["a"])
    assert (second.line, second.lines["mounts"]) == (4, 5)
    assert read_policy("containers := f(x)\n").containers == ()
    assert read_policy('containers := [{"a": f(x)}]\n').containers == ()


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("A=x|y", "A=x", True),
        ("A=x|y", "y", True),
        ("A=x|y", "A=y", False),
        ("A=.+", "A=x\n", False),
        ("((?i)FABRIC)_.+=.+", "Fabric_X=y", True),
        ("[", "[", False),
        ("(?s:.*)", "a\nb", True),
    ],
)
def test_patterns(pattern: str, text: str, expected: bool) -> None:
    assert fits(pattern, "re2", text) is expected


def test_rules_by_name_and_value() -> None:
    rule = {"name": "A", "name_strategy": "string", "value": "[0-9]+", "value_strategy": "re2"}
    assert env_admitted([rule], "A=1")
    assert not env_admitted([rule], "A=x")
    assert not env_admitted([rule], "A")


def test_every_profile_loads_and_admits_its_own_examples() -> None:
    titles = available(folders())
    assert {
        "containerd@1.6",
        "containerd@1.7",
        "containerd@2.1",
        "containerd@2.3",
        "kubernetes@1.34",
        "k3s@1.34",
        "eks@2026.1",
        "aks@2026.1",
        "aci@2026.9",
    } <= set(titles)
    for title in titles:
        profile = load_profile(title)
        assert profile.title == title
        for variable in profile.env:
            assert env_admitted([variable.rule.value()], variable.example), variable
        for mount in profile.mounts:
            assert mount_admitted(
                [mount.rule.value()], {**mount.rule.value(), "source": mount.example}
            )


def test_newest_profiles_and_own_ones(tmp_path: Path) -> None:
    for version in ("1.9", "1.10"):
        write(tmp_path / f"mine@{version}.json", {"name": "mine", "version": version, "about": "x"})
    assert load_profile("mine", [tmp_path]) == Profile("mine", "1.10", "x", seccomp={})
    assert load_profile("mine@1.9", [tmp_path]).version == "1.9"
    assert load_profile(str(tmp_path / "mine@1.9.json")).version == "1.9"
    assert [profile.version for profile in newest([tmp_path])] == ["1.10"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"name": "x", "version": "1", "about": "", "envs": []},
        {"name": "x", "version": "1", "about": "", "env": [{"pattern": "x", "strategy": "glob"}]},
    ],
)
def test_bad_profiles(document: Any, tmp_path: Path) -> None:
    write(tmp_path / "bad.json", document)
    with pytest.raises(SourceError, match=r"bad\.json"):
        load_profile(str(tmp_path / "bad.json"))


def test_layers_that_differ_below_make_another_policy(
    tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    blobs = Blobs()
    manifests = [
        blobs.image(
            [base_layer(), tar_of({"v": v})], f"docker.io/library/app:{v.decode()}", Cmd=["x"]
        )
        for v in (b"1", b"2")
    ]
    archive = blobs.archive(tmp_path / "a.tar", *manifests)
    texts = []
    for version in "12":
        group = write(
            tmp_path / "g.json", {"containers": [{"name": "c", "image": f"app:{version}"}]}
        )
        texts.append(call("generate", group, "--archive", archive).stdout)
    assert [change.what for change in diff_policies(*texts)] == ["layers", "layers"]
