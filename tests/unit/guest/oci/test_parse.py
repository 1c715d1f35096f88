"""The document of a container: every refused field, every type, and what is read from the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_api.status import InvalidArgumentError
from parma_guest.oci.parse import ResourceRequest, parse_container, parse_exec
from parma_guest.policy.fields import OCI, Kind
from tests.fixtures.group import container_id, oci_document, process

ONE = container_id(1)


def parse(document: dict[str, Any]) -> Any:
    return parse_container(json.dumps(document).encode())


def with_member(path: str, value: object) -> dict[str, Any]:
    """A sound document with `value` at `path`."""
    document: dict[str, Any] = json.loads(json.dumps(oci_document(ONE)))
    *above, name = path.split(".")
    place: Any = document
    for part in above:
        place = place.setdefault(part.removesuffix("[]"), [{}] if part.endswith("[]") else {})
        place = place[0] if isinstance(place, list) else place
    place[name] = value
    return document


SOMETHING: dict[str, object] = {
    "hooks.prestart": [{"path": "/bin/sh"}],
    "hooks.createRuntime": [{"path": "/bin/sh"}],
    "hooks.createContainer": [{"path": "/bin/sh"}],
    "hooks.startContainer": [{"path": "/bin/sh"}],
    "hooks.poststart": [{"path": "/bin/sh"}],
    "hooks.poststop": [{"path": "/bin/sh"}],
    "linux.devices": [{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}],
    "linux.resources.unified": {"memory.max": "max"},
    "linux.resources.rdma": {"mlx5_1": {"hcaHandles": 3}},
    "linux.intelRdt": {"closID": "x"},
    "linux.personality": {"domain": "LINUX32"},
    "linux.timeOffsets": {"monotonic": {"secs": 1}},
    "linux.mountLabel": "system_u:object_r:x",
    "linux.sysctl": {"kernel.core_pattern": "|/bin/sh"},
    "linux.seccomp.listenerPath": "/run/x",
    "linux.seccomp.listenerMetadata": "x",
    "linux.uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
    "linux.gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
}
REFUSED = sorted(path for path, row in OCI.items() if row.kind is Kind.REFUSED)


@pytest.mark.parametrize("path", REFUSED)
def test_refused_fields_name_themselves(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="refused") as caught:
        parse(with_member(path, SOMETHING.get(path, 1)))
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (path, value)
        for path in REFUSED
        for value in (None, [], {}, "", 0, False)
        if "seccomp" not in path or value in (None, "")  # its canonical form has types of its own
    ],
)
def test_an_empty_refused_field_says_nothing(path: str, value: object) -> None:
    assert parse(with_member(path, value)).process.args == ("sleep",)


CONSTANT: dict[str, object] = {
    "ociVersion": "9.9",
    "hostname": "other",
    "annotations": {"a": "b"},
    "process.rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}],
    "process.apparmorProfile": "cri-containerd.apparmor.d",
    "process.selinuxLabel": "x",
    "process.oomScoreAdj": -1000,
    "linux.namespaces": [{"type": "network", "path": "/proc/1/ns/net"}, {"type": "user"}],
    "linux.cgroupsPath": "/../..",
    "linux.rootfsPropagation": "shared",
    "linux.maskedPaths": [],
    "linux.readonlyPaths": [],
    "linux.resources.devices": [{"allow": True, "access": "rwm"}],
    "linux.resources.memory.swap": 5,
    "linux.resources.memory.swappiness": 5,
    "linux.resources.memory.useHierarchy": True,
    "linux.resources.memory.checkBeforeUpdate": True,
    "linux.resources.cpu.mems": "0-7",
    "linux.resources.hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
}


def test_every_constant_field_is_tried() -> None:
    assert CONSTANT.keys() == {path for path, row in OCI.items() if row.kind is Kind.CONSTANT}


@pytest.mark.parametrize("path", sorted(CONSTANT))
def test_a_constant_field_has_no_effect(path: str) -> None:
    assert parse(with_member(path, CONSTANT[path])) == parse(oci_document(ONE))


@pytest.mark.parametrize(
    "path",
    [
        *("new", "process.new", "process.user.new", "root.new", "linux.new", "mounts[].new"),
        *("linux.resources.new", "linux.resources.memory.new", "linux.seccomp.new", "hooks.new"),
        *("process.capabilities.new", "process.consoleSize.depth", "Process", "linux.Seccomp"),
    ],
)
def test_an_unknown_field_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown field"):
        parse(with_member(path, None))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("process.args", []),
        ("process.args", [""]),
        ("process.args", "sleep"),
        ("process.args", [1]),
        ("process.args", ["x"] * 5000),
        ("process.cwd", "relative"),
        ("process.cwd", None),
        ("process.env", {"A": "b"}),
        ("process.terminal", 1),
        ("process.noNewPrivileges", "true"),
        ("process.user", "root"),
        ("process.user.uid", -1),
        ("process.user.uid", 2**32 - 1),
        ("process.user.uid", True),
        ("process.user.uid", "0"),
        ("process.user.umask", 0o1000),
        ("process.user.umask", -1),
        ("process.user.additionalGids", [-1]),
        ("process.user.username", 5),
        ("process.capabilities", None),
        ("process.capabilities", []),
        ("process.capabilities.bounding", "CAP_KILL"),
        ("root", "rootfs"),
        ("root.readonly", 1),
        ("mounts", [5]),
        ("mounts", {}),
        ("mounts[].options", "ro"),
        ("linux", []),
        ("linux.seccomp", "unconfined"),
        ("linux.seccomp.defaultAction", 5),
        ("linux.resources.memory.limit", 2**80),
        ("linux.resources.cpu.shares", "many"),
        ("linux.resources.pids", 5),
    ],
)
def test_wrong_types(path: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError):
        parse(with_member(path, value))


def test_what_is_read() -> None:
    document = oci_document(
        ONE,
        linux={
            "resources": {
                "memory": {"limit": 1 << 30, "reservation": 5},
                "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1"},
                "pids": {"limit": 100},
            },
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []},
        },
    )
    document["process"]["user"] = {"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [7]}
    found = parse(document)
    assert found.process.user.umask == 0o77
    assert (found.process.user.uid, found.process.user.gid) == (5, 6)
    assert found.resources == ResourceRequest(1 << 30, 5, 512, 50_000, 100_000, "0-1", 100)
    assert found.seccomp == {"defaultAction": "SCMP_ACT_ERRNO"}
    assert [mount.destination for mount in found.mounts][:2] == ["/proc", "/dev"]


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}],
        },
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}],
        },
    ],
)
def test_seccomp_profiles_that_cannot_be_put_in_force(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        parse(oci_document(ONE, linux={"seccomp": profile}))


def test_an_exec_has_the_same_rows() -> None:
    assert parse_exec(json.dumps(process(("probe",))).encode()).args == ("probe",)
    with pytest.raises(InvalidArgumentError, match=r"process\.ioPriority: refused"):
        parse_exec(json.dumps(process(("probe",), ioPriority={"class": "x"})).encode())
    with pytest.raises(InvalidArgumentError, match=r"process\.hooks: unknown"):
        parse_exec(json.dumps(process(("probe",), hooks={})).encode())
