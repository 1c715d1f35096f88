"""`parma policy generate` as a user calls it: what the policy says, and that failures leave nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from parma_tenant.generate.annotate import Change, annotate, annotation_value, size_note
from parma_tenant.generate.model import FLAGS
from parma_tenant.generate.rego import POINTS
from parma_tenant.generate.written import read_policy
from parma_tenant.source.errors import SourceError
from tests.unit.tenant.policy.conftest import Caller
from tests.unit.tenant.policy.kit import (
    NAME,
    Blobs,
    Registry,
    base_layer,
    serving,
    simple_archive,
    tar_of,
)

pytestmark = pytest.mark.usefixtures("own_cache")


def group_file(path: Path, *containers: Any, **more: Any) -> Path:
    path.write_text(json.dumps({"containers": containers, **more}))
    return path


def container(call: Caller, tmp_path: Path, described: Any, **config: Any) -> dict[str, Any]:
    """The one container of the policy for a group of one."""
    archive = simple_archive(tmp_path / "a.tar", **config)
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1", **described})
    done = call("generate", group, "--archive", archive, "--offline")
    assert done.exit_code == 0, done.stderr
    [written] = read_policy(done.stdout).containers
    return dict(written.value)


def ids(*numbers: int) -> list[dict[str, str]]:
    return [{"pattern": str(number), "strategy": "id"} for number in numbers]


@pytest.mark.parametrize(
    ("described", "config", "command"),
    [
        ({}, {}, ["/bin/sh", "-c"]),
        ({"command": ["x"]}, {}, ["x"]),
        ({"args": ["y"]}, {}, ["/bin/sh", "y"]),
        ({"command": ["x"], "args": ["y"]}, {}, ["x", "y"]),
        ({"command": [], "args": []}, {}, ["/bin/sh", "-c"]),
        ({}, {"Entrypoint": None, "Cmd": ["z"]}, ["z"]),
    ],
)
def test_command(
    described: Any, config: Any, command: list[str], call: Caller, tmp_path: Path
) -> None:
    assert container(call, tmp_path, described, **config)["command"] == command


def test_variables_users_signals_and_folder(call: Caller, tmp_path: Path) -> None:
    found = container(
        call,
        tmp_path,
        {"env": [{"name": "PATH", "value": "/x"}, {"name": "N"}], "exec": [["a", "b"]]},
        Env=["PATH=/bin", "A=b=c"],
        User="app:logs",
        WorkingDir="/srv",
        StopSignal="SIGQUIT",
    )
    assert [rule["pattern"] for rule in found["env_rules"]] == ["A=b=c", "PATH=/x", "N="]
    assert {rule["strategy"] for rule in found["env_rules"]} == {"string"}
    assert found["user"]["user_idname"] == ids(1000)[0]
    assert found["user"]["group_idnames"] == ids(50, 1001)
    assert found["user"]["umask"] == "0022"
    assert found["signals"] == [3, 9, 15]
    assert found["working_dir"] == "/srv"
    assert found["exec_processes"] == [{"command": ["a", "b"], "signals": [9, 15]}]
    assert found["allow_stdio_access"] is True
    assert found["allow_elevated"] is False


@pytest.mark.parametrize(
    ("env", "given", "expected"),
    [
        (None, [], ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        (["PATH=/a"], [], ["PATH=/a"]),
        (None, [{"name": "PATH", "value": "/b"}], ["PATH=/b"]),
    ],
)
def test_path(env: Any, given: Any, expected: list[str], call: Caller, tmp_path: Path) -> None:
    found = container(call, tmp_path, {"env": given}, Env=env)
    assert [rule["pattern"] for rule in found["env_rules"]] == expected


def test_configurations_are_read_as_go_reads_them(call: Caller, tmp_path: Path) -> None:
    found = container(call, tmp_path, {}, entryPoint=["/go"], cmd=[], workingdir="/w")
    assert (found["command"], found["working_dir"]) == (["/go"], "/w")


def test_given_user_and_capabilities(call: Caller, tmp_path: Path) -> None:
    described = {
        "user": 1000,
        "group": 7,
        "supplementalGroups": [8],
        "capabilities": {"drop": ["ALL"], "add": ["net_admin", "CAP_KILL"]},
        "noNewPrivileges": True,
        "stdio": False,
    }
    found = container(call, tmp_path, described)
    assert found["user"]["user_idname"] == ids(1000)[0]
    assert found["user"]["group_idnames"] == ids(7, 50, 8)
    names = ["CAP_KILL", "CAP_NET_ADMIN"]
    assert found["capabilities"] == {
        "bounding": names, "effective": names, "inheritable": [], "permitted": names, "ambient": [],
    }  # fmt: skip
    assert found["no_new_privileges"] is True
    assert found["allow_stdio_access"] is False


def test_mounts_seccomp_and_signals_of_a_group_file(call: Caller, tmp_path: Path) -> None:
    mount = {
        "destination": "/d",
        "source": "sandbox:///volumes/empty-dir/d",
        "options": ["rbind", "rw"],
    }
    found = container(call, tmp_path, {"mounts": [mount], "seccomp": "a" * 64, "signals": [1]})
    assert found["mounts"] == [{**mount, "type": "bind"}]
    assert found["seccomp_profile_sha256"] == "a" * 64
    assert found["signals"] == [1, 9, 15]


def test_privileged(call: Caller, tmp_path: Path) -> None:
    found = container(call, tmp_path, {"privileged": True})
    assert found["allow_elevated"] is True
    assert len(found["capabilities"]["bounding"]) == 41


def test_the_same_input_gives_the_same_bytes_and_header(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"}, allowPortForward=[80])
    texts = []
    for name in ("1.rego", "2.rego"):
        done = call("generate", group, "--archive", archive, "--output", tmp_path / name)
        assert done.exit_code == 0, done.stderr
        texts.append((tmp_path / name).read_bytes())
        assert done.stderr.splitlines()[-1] == f"HOST_DATA {hashlib.sha256(texts[-1]).hexdigest()}"
    assert texts[0] == texts[1]
    lines = texts[0].decode().splitlines()
    assert lines[0] == "# Made by `parma policy generate` from g.json."
    assert lines[3].startswith(f"#   c: {NAME}@sha256:")
    assert lines[5] == "# Node profiles: containerd@2.3."
    written = read_policy(texts[0].decode())
    assert written.lists["allow_port_forward"] == [80]
    assert [rule["pattern"] for rule in written.platform("env_rules")] == [
        "HOSTNAME=.+",
        "TERM=xterm",
    ]
    assert set(FLAGS) <= written.bindings.keys()
    assert {
        point: f"data.framework.{point}" for point in POINTS
    }.items() <= written.bindings.items()


def test_a_header_cannot_be_left(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(tmp_path / "x\npackage evil.json", {"name": "c", "image": "app:1"})
    text = call("generate", group, "--archive", archive).stdout
    assert [line for line in text.splitlines() if line.startswith("package")] == ["package policy"]


def test_json_says_what_was_made(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar", Volumes={"/data": {}})
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"})
    done = call("generate", group, "--archive", archive, "--json")
    found = json.loads(done.stdout)
    assert hashlib.sha256(found["policy"].encode()).hexdigest() == found["host_data"]
    assert found["images"]["app:1"]["reference"] == NAME
    assert found["profiles"] == ["containerd@2.3"]
    assert any("VOLUME /data" in note for note in found["notes"])
    assert "note: container c: the image declares VOLUME /data" in done.stderr


def test_allowing_more_says_what_it_costs(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(
        tmp_path / "g.json",
        {"name": "c", "image": "app:1", "stdio": False},
        {"name": "d", "image": "app:1", "stdio": False},
    )
    done = call(
        "generate",
        group,
        "--archive",
        archive,
        "--allow-exec",
        "c=sh -c 'a b'",
        "--allow-port-forward",
        8080,
    )
    written = read_policy(done.stdout)
    first, second = written.containers
    assert first.value["exec_processes"] == [
        {"command": ["sh", "-c", "a b"], "signals": [1, 2, 9, 15]}
    ]
    assert (first.value["allow_stdio_access"], second.value["allow_stdio_access"]) == (True, False)
    assert second.value["exec_processes"] == []
    assert written.lists["allow_port_forward"] == [8080]
    assert "whoever controls the host can run this in c" in done.stderr
    assert "port 8080" in done.stderr


def test_hashes_are_kept(call: Caller, tmp_path: Path, own_cache: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"})
    first = call("generate", group, "--archive", archive)
    [kept] = [path for path in own_cache.rglob("*") if path.is_file()]
    layer = read_policy(first.stdout).containers[0].value["layers"][0]
    kept.write_text(kept.read_text().replace(layer, "0" * 64))
    assert read_policy(call("generate", group, "--archive", archive).stdout).containers[0].value[
        "layers"
    ] == ["0" * 64]
    kept.write_text("{")
    assert call("generate", group, "--archive", archive).stdout == first.stdout


@pytest.mark.parametrize(
    ("group", "options", "why"),
    [
        ({"containers": []}, (), "at least one container"),
        (
            {"containers": [{"name": "c", "image": "app:1", "comand": ["x"]}]},
            (),
            "comand: there is no such member",
        ),
        ({"containers": [{"name": "c"}]}, (), "`image` is missing"),
        ({"containers": [{"name": "C", "image": "app:1"}]}, (), "a name is made of"),
        ({"containers": [{"name": "c", "image": "app:1"}] * 2}, (), "two containers are called c"),
        ({"containers": [{"name": "c", "image": "app:2"}]}, (), "in none of the places"),
        (
            {"containers": [{"name": "c", "image": "app:1", "seccomp": "x"}]},
            (),
            "SHA-256 of a profile",
        ),
        ({"containers": [{"name": "c", "image": "app:1", "signals": [0]}]}, (), "from 1 to 64"),
        (
            {
                "containers": [
                    {
                        "name": "c",
                        "image": "app:1",
                        "mounts": [{"destination": "/x", "source": "/etc"}],
                    }
                ]
            },
            (),
            "begins with sandbox:///",
        ),
        ({"containers": [{"name": "c", "image": "APP"}]}, (), "no name of an image"),
        (
            {"containers": [{"name": "c", "image": "app:1"}], "allowPortForward": [0]},
            (),
            "from 1 to 65535",
        ),
        (
            {"containers": [{"name": "c", "image": "app:1"}]},
            ("--allow-exec", "d=sh"),
            "there is no container d",
        ),
        ({"containers": [{"name": "c", "image": "app:1"}]}, ("--allow-exec", "'"), "--allow-exec"),
        (
            {"containers": [{"name": "c", "image": "app:1"}]},
            ("--profile", "none"),
            "no node profile none; there are aci",
        ),
        (
            {"containers": [{"name": "c", "image": "app:1"}]},
            ("--archive", "/nonexistent"),
            "cannot be read",
        ),
        (
            {"containers": [{"name": "c", "image": "app:1"}]},
            ("--containerd", "/nonexistent"),
            "cannot be read",
        ),
        (
            {"containers": [{"name": "c", "image": "app:1"}]},
            ("--annotate",),
            "needs one file of Kubernetes",
        ),
    ],
)
def test_refusals_leave_nothing(
    group: Any, options: tuple[str, ...], why: str, call: Caller, tmp_path: Path
) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    file = tmp_path / "g.json"
    file.write_text(json.dumps(group))
    target = tmp_path / "out" / "p.rego"
    target.parent.mkdir()
    done = call("generate", file, "--archive", archive, "--offline", "--output", target, *options)
    assert done.exit_code == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(target.parent.iterdir()) == []


def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"})
    ours, theirs = pty.openpty()
    program = "from parma_tenant.cli.policy import policy; policy()"
    command = [
        sys.executable,
        "-c",
        program,
        "generate",
        str(group),
        "--archive",
        str(archive),
        "-o",
        str(tmp_path / "p"),
    ]
    done = subprocess.run(
        command, stderr=theirs, stdin=subprocess.DEVNULL, check=False, timeout=100
    )
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert "hashing layers" in shown
    assert "100%" in shown
    assert "HOST_DATA" in shown


def test_one_bad_layer_is_no_policy_and_keeps_the_old_file(call: Caller, tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image([base_layer(), tar_of({"x": b"y"})], NAME, Cmd=["x"])
    victim = json.loads(blobs.content[str(image["digest"])])["layers"][1]["digest"]
    good = blobs.content[victim]
    blobs.content[victim] = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
    archive = blobs.archive(tmp_path / "a.tar", image)
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"})
    target = tmp_path / "p.rego"
    target.write_text("old")
    done = call("generate", group, "--archive", archive, "--output", target)
    assert done.exit_code == 2
    assert victim in done.stderr
    assert target.read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_a_target_that_cannot_be_written(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    group = group_file(tmp_path / "g.json", {"name": "c", "image": "app:1"})
    done = call("generate", group, "--archive", archive, "--output", tmp_path / "none" / "p.rego")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "cannot be written" in done.stderr


DEPLOYMENT = """\
# kept: a comment
apiVersion: v1
kind: ConfigMap
metadata: {name: ümlaut}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata:
      labels: {a: b}
    spec:
      containers:
        - image: IMAGE  # kept: another
          name: web
"""


def decoded(value: str) -> bytes:
    return gzip.decompress(base64.b64decode(value))


def test_annotate_pins_what_a_registry_gave(call: Caller, tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image([base_layer()], Cmd=["x"])
    with serving(Registry(blobs, {"app:1": str(image["digest"])})) as registry:
        name = f"{registry.address}/app:1"
        file = tmp_path / "d.yaml"
        file.write_text(DEPLOYMENT.replace("IMAGE", name))
        done = call("generate", file, "--annotate", "--output", tmp_path / "p.rego")
        assert done.exit_code == 0, done.stderr
        text = file.read_text()
        _, deployment = yaml.safe_load_all(text)
        template = deployment["spec"]["template"]
        policy = decoded(template["metadata"]["annotations"]["io.parma/policy"])
        assert policy == (tmp_path / "p.rego").read_bytes()
        assert template["metadata"]["labels"] == {"a": "b"}
        assert template["spec"]["containers"][0]["image"] == f"{name}@{image['digest']}"
        assert "# kept: a comment" in text
        assert "# kept: another" in text
        assert f'+        - image: "{name}@' in done.stderr
        again = call("generate", file, "--annotate")
        assert again.exit_code == 0, again.stderr
        assert file.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "kind: Pod\nmetadata:\n  name: p\nspec: {}\n",
        "kind: Pod\nspec: {}\n",
        "kind: Pod\nmetadata:\n  annotations:\n    x: y\nspec: {}\n",
        "kind: Pod\nmetadata:\n  annotations: {}\nspec: {}\n",
        "kind: Pod\nmetadata:\n  annotations:\nspec: {}\n",
        "kind: Pod\nmetadata: {annotations: {io.parma/policy: old, x: y}}\nspec: {}\n",
        "kind: Pod\nmetadata:\n  annotations:\n    io.parma/policy: >-\n      old\n    x: y\nspec: {}\n",
        '{"kind": "Pod", "metadata": {"annotations": {}}, "spec": {}}',
        '{"kind": "Pod", "spec": {}}',
        "kind: List\nitems:\n- kind: ConfigMap\n- kind: Pod\n  metadata:\n    name: p\n  spec: {}\n",
    ],
)
def test_annotations_in_every_form(text: str) -> None:
    changed = annotate(text, [Change(b"package policy\n", {})])
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    pod = after["items"][1] if "items" in after else after
    annotations = pod["metadata"]["annotations"]
    assert decoded(annotations.pop("io.parma/policy")) == b"package policy\n"
    old = before["items"][1] if "items" in before else before
    old_annotations = (old.get("metadata") or {}).get("annotations") or {}
    old_annotations.pop("io.parma/policy", None)
    assert annotations == old_annotations
    assert {key: value for key, value in pod.items() if key != "metadata"} == {
        key: value for key, value in old.items() if key != "metadata"
    }


def test_policies_too_large_for_annotations() -> None:
    def noise(size: int) -> bytes:
        return b"".join(
            hashlib.sha256(bytes([i & 255, i >> 8])).digest() for i in range(size // 32)
        )

    assert size_note(noise(80 << 10)) is None
    note = size_note(noise(120 << 10))
    assert note is not None
    assert "--server-side" in note
    with pytest.raises(SourceError, match="ConfigPath"):
        annotation_value(noise(200 << 10))


def test_several_workloads(call: Caller, tmp_path: Path) -> None:
    archive = simple_archive(tmp_path / "a.tar")
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "app:1"}]},
        }
        for name in ("one", "two")
    ]
    file = tmp_path / "p.yaml"
    file.write_text("\n---\n".join(map(json.dumps, pods)))
    done = call("generate", file, "--archive", archive, "--output", tmp_path / "p.rego")
    assert (done.exit_code, (tmp_path / "p.rego").exists()) == (2, False)
    assert "pod/one, pod/two" in done.stderr
    (tmp_path / "out").mkdir()
    done = call("generate", file, "--archive", archive, "--output", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pod-one.rego",
        "pod-two.rego",
    ]
    done = call("generate", file, "--archive", archive, "--select", "two")
    assert done.stdout == (tmp_path / "out" / "pod-two.rego").read_text()
