"""What a pod may ask for, as a table: dropped, rewritten, refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from parma_api.status import ApiError
from parma_api.volumes import VolumeKind
from parma_shim.config import HostPaths
from parma_shim.errors import RefusedError, UsageError
from parma_shim.sandbox.plan import (
    ContainerPlan,
    is_privileged,
    plan_container,
    plan_exec,
    plan_sandbox,
)
from tests.fakes.rig import NAMESPACES, document

Document = dict[str, object]
KUBELET = "/var/lib/kubelet/pods/6f/volumes/kubernetes.io~"


def planned(spec: Document) -> ContainerPlan:
    return plan_container(spec, "ns", "c", plan_sandbox(spec, "ns", "c"))


def guest(spec: Document) -> Document:
    found = json.loads(planned(spec).document)
    assert isinstance(found, dict)
    return found


def with_mount(**mount: object) -> Document:
    return document("x", mounts=[{"type": "bind", "options": ["rbind", "ro"], **mount}])


def with_linux(**linux: object) -> Document:
    return document("x", linux={"namespaces": NAMESPACES, **linux})


def without(kind: str) -> Document:
    return with_linux(namespaces=[x for x in NAMESPACES if x["type"] != kind])


def test_a_host_path_is_copied_where_the_host_offers_it() -> None:
    spec = with_mount(destination="/d", source="/srv/data")
    plan = plan_container(spec, "ns", "c", plan_sandbox(spec, "ns", "c"), HostPaths.COPY)
    (volume,) = plan.volumes
    assert (volume.volume.kind, volume.source) == (VolumeKind.COPY, "/srv/data")
    (mount,) = json.loads(plan.document)["mounts"]
    assert mount["source"] == "sandbox:///host/srv/data"


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("/srv/../etc", ["rbind"], "no plain path"),
        ("/srv", ["rbind", "rslave"], "mountPropagation"),
    ],
)
def test_what_is_no_copy_either(source: str, options: list[str], match: str) -> None:
    spec = with_mount(destination="/d", source=source, options=options)
    with pytest.raises(RefusedError, match=match):
        plan_container(spec, "ns", "c", plan_sandbox(spec, "ns", "c"), HostPaths.COPY)


@pytest.mark.parametrize("word", ["rshared", "rslave"])
def test_mounts_propagate_within_an_empty_dir(word: str) -> None:
    mount = {"destination": "/d", "source": f"{KUBELET}empty-dir/x", "options": ["rbind", word]}
    spec = with_mount(**mount)
    spec["linux"]["rootfsPropagation"] = word
    document = json.loads(planned(spec).document)
    assert document["mounts"][0]["options"] == ["rbind", word]
    assert "rootfsPropagation" not in document["linux"], "that is the guest's own"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (without("network"), "hostNetwork is not possible"),
        (without("pid"), "hostPID is not possible"),
        (without("ipc"), "hostIPC is not possible"),
        (with_linux(namespaces=[*NAMESPACES, {"type": "user"}]), "user namespaces"),
        (with_mount(destination="/d", source="/etc"), "hostPath"),
        (with_mount(destination="/d", source=f"{KUBELET}csi/x"), "hostPath"),
        (with_mount(destination="/d", source=f"{KUBELET}secret/../x"), "no plain path"),
        (
            with_mount(destination="/d", source=f"{KUBELET}secret/x", options=["rbind", "rshared"]),
            "mountPropagation",
        ),
        (
            with_mount(destination="/d", source="/dev/sda", type="ext4"),
            "file system of type 'ext4'",
        ),
        (with_mount(destination="/d", source="/etc", type="tmpfs"), "file system of type 'tmpfs'"),
        (with_linux(devices=[{"path": "/dev/kvm", "type": "c"}]), "device /dev/kvm"),
        (document("x", hooks={"prestart": [{"path": "/x"}]}), "hooks"),
    ],
)
def test_refused_in_one_line(spec: Document, match: str) -> None:
    with pytest.raises(RefusedError, match=match) as caught:
        planned(spec)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "spec",
    [
        document("x", linux=[]),
        document("x", mounts={}),
        document("x", mounts=["/proc"]),
        document("x", annotations={"a": 1}),
        with_mount(destination="relative", source="/x"),
        with_mount(destination=7, source="/x"),
    ],
)
def test_malformed(spec: Document) -> None:
    with pytest.raises(UsageError):
        planned(spec)


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (
            {"destination": "/c", "source": f"{KUBELET}configmap/conf"},
            {"source": "sandbox:///volumes/configmap/conf", "options": ["rbind", "ro"]},
        ),
        (
            {"destination": "/e", "source": f"{KUBELET}empty-dir/tmp", "options": ["rbind", "rw"]},
            {"source": "sandbox:///volumes/empty-dir/tmp", "options": ["rbind", "rw"]},
        ),
        (
            {"destination": "/dev/shm", "source": "/run/containerd/sandboxes/x/shm"},
            {"type": "tmpfs", "source": "shm"},
        ),
        (
            {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "x", "options": ["ro"]},
            {
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ),
        (
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        ),
    ],
)
def test_rewritten(mount: Document, expected: Document) -> None:
    mounts = guest(with_mount(**mount))["mounts"]
    assert isinstance(mounts, list)
    assert len(mounts) == 1
    assert {name: mounts[0][name] for name in expected} == expected
    assert mounts[0]["destination"] == mount["destination"]


def test_network_files_are_content() -> None:
    spec = with_mount(destination="/etc/hosts", source="/h/etc-hosts")
    assert guest(spec)["mounts"] == []
    assert planned(spec).network_files == (("hosts", "/h/etc-hosts"),)
    assert plan_sandbox(spec, "ns", "c").network_files == (("hosts", "/h/etc-hosts"),)


def test_the_hosts_own_things_are_dropped() -> None:
    spec = with_linux(
        cgroupsPath="/k8s/x", sysctl={"net.ipv4.ip_forward": "1"}, seccomp={"defaultAction": "A"}
    )
    spec |= {"annotations": {"a": "b"}, "hostname": "h"}
    found = guest(spec)
    assert found["linux"] == {"seccomp": {"defaultAction": "A"}}
    assert not {"annotations", "hostname", "hooks"} & found.keys()
    container_id = hashlib.sha256(b"ns/c").hexdigest()
    assert found["root"] == {"path": f"/run/gcs/c/{container_id}/rootfs"}
    sandbox = plan_sandbox(spec, "ns", "c")
    assert sandbox.sysctls == (("net.ipv4.ip_forward", "1"),)
    assert sandbox.cgroups_path == "/k8s/x"
    assert sandbox.hostname == "h"


def test_ids() -> None:
    name = "a" * 64
    alone = plan_sandbox(document("x"), "ns", name)
    assert alone.sandbox_id != name
    annotations = {"io.kubernetes.cri.container-type": "sandbox"}
    assert plan_sandbox(document("x", annotations=annotations), "ns", name).sandbox_id == name
    assert plan_container(document("x"), "ns", name, alone).container_id == name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda spec: spec, True),
        (lambda spec: spec["linux"].update(maskedPaths=["/proc/x"]), False),
        (lambda spec: spec["linux"].update(readonlyPaths=["/proc/x"]), False),
        (lambda spec: spec["process"]["capabilities"].update(bounding=["CAP_SYS_ADMIN"]), False),
        (lambda spec: spec["process"].pop("capabilities"), False),
    ],
)
def test_privileged(change: Callable[[Document], object], expected: bool) -> None:
    spec = document("x", linux={"namespaces": NAMESPACES})
    process = spec["process"]
    assert isinstance(process, dict)
    process["capabilities"] = {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"]}
    change(spec)
    assert is_privileged(spec) is expected


def test_shared_pid_namespace() -> None:
    assert not planned(document("x")).share_pod_pid
    shared = [{**x, "path": "/proc/1/ns/pid"} if x["type"] == "pid" else x for x in NAMESPACES]
    assert planned(with_linux(namespaces=shared)).share_pod_pid


def test_exec() -> None:
    process = json.loads(plan_exec({"args": ["sh"], "terminal": False}, terminal=True))
    assert process == {"args": ["sh"], "terminal": True}
    with pytest.raises(ApiError):
        plan_exec({"args": []}, terminal=False)
