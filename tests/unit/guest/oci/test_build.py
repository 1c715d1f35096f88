"""The document that crun gets: golden, and free of anything that the host could have added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parma_api.ids import ContainerId
from parma_api.policy.decision import Capabilities
from parma_guest.linux.cgroup import Limits
from parma_guest.oci.build import (
    MASKED_PATHS,
    READONLY_PATHS,
    ContainerPlan,
    Namespaces,
    ProcessPlan,
    build_container,
    build_process,
)
from parma_guest.oci.devices import Device
from parma_guest.oci.parse import Mount, ResourceRequest
from parma_guest.oci.resources import Machine, bounded, oci_resources
from parma_guest.oci.users import Identities, Identity

ONE = ContainerId("c" * 64)
PROCESS = ProcessPlan(
    args=("app", "-x"),
    env=("A=1",),
    cwd="/srv",
    identities=Identities(Identity(5, "app"), (Identity(6, ""), Identity(7, "")), 0o027),
    capabilities=Capabilities(("CAP_KILL",), (), (), ("CAP_KILL",), ()),
    no_new_privileges=True,
)
PLAN = ContainerPlan(
    container=ONE,
    process=PROCESS,
    root="/root",
    read_only=True,
    mounts=(
        Mount("/data", "bind", "/judged", ("rbind", "ro")),
        Mount(
            "/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")
        ),
        Mount("/proc", "proc", "proc", ("nosuid",)),
    ),
    namespaces=Namespaces("/ipc", "/uts", "/net"),
    seccomp={"defaultAction": "SCMP_ACT_ERRNO"},
    limits=Limits(memory_max=1 << 20, pids_max=9, cpu_weight=50, cpu_quota=1000, cpus="0"),
    privileged=False,
    shm="/pod-shm",
    pins={"/judged": "/pinned"},
    devices=(Device("/dev/sev-guest", 10, 125),),
    binds=(("/agent", "/agent"),),
)
STANDARD = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]


def device_rules(extra: tuple[tuple[int, int | None], ...] = ()) -> list[dict[str, Any]]:
    allowed = [
        {"allow": True, "type": "c", "major": major, "access": "rwm"}
        | ({} if minor is None else {"minor": minor})
        for major, minor in (*STANDARD, *extra)
    ]
    return [{"allow": False, "access": "rwm"}, *allowed]


def test_golden() -> None:
    assert build_container(PLAN) == {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o027},
            "args": ["app", "-x"],
            "env": ["A=1"],
            "cwd": "/srv",
            "capabilities": {
                "bounding": ["CAP_KILL"],
                "effective": [],
                "inheritable": [],
                "permitted": ["CAP_KILL"],
                "ambient": [],
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1048576, "hard": 1048576}],
            "noNewPrivileges": True,
            "oomScoreAdj": 0,
        },
        "root": {"path": "/root", "readonly": True},
        "mounts": [
            {
                "destination": "/data",
                "type": "bind",
                "source": "/pinned",
                "options": ["rbind", "ro"],
            },
            {
                "destination": "/dev/shm",
                "type": "bind",
                "source": "/pod-shm",
                "options": ["bind", "nosuid", "noexec", "nodev"],
            },
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        ],
        "linux": {
            "cgroupsPath": f"/parma/{ONE}",
            "namespaces": [
                {"type": "mount"},
                {"type": "cgroup"},
                {"type": "ipc", "path": "/ipc"},
                {"type": "uts", "path": "/uts"},
                {"type": "network", "path": "/net"},
                {"type": "pid"},
            ],
            "resources": {
                "memory": {"limit": 1 << 20},
                "cpu": {"quota": 1000, "period": 100_000, "cpus": "0"},
                "unified": {"cpu.weight": "50"},
                "pids": {"limit": 9},
                "devices": device_rules(),
            },
            "rootfsPropagation": "private",
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        },
    }


def test_privileged() -> None:
    built: Any = build_container(replace(PLAN, privileged=True, seccomp=None))
    assert built["linux"]["maskedPaths"] == []
    assert built["linux"]["readonlyPaths"] == []
    assert "seccomp" not in built["linux"]
    assert built["linux"]["devices"][0]["path"] == "/dev/sev-guest"
    assert built["linux"]["resources"]["devices"] == device_rules(((10, 125),))
    assert built["mounts"][-1]["source"] == "/agent"


def with_volume(*options: str, privileged: bool) -> Any:
    mounts = (Mount("/data", "bind", "/judged", ("rbind", *options)),)
    plan = replace(PLAN, mounts=mounts, privileged=privileged, block_majors=(253, 43))
    built: Any = build_container(plan)
    return built


@pytest.mark.parametrize(
    ("word", "privileged", "root", "bind"),
    [
        ("rshared", True, "rshared", "rshared"),
        ("shared", True, "rshared", "shared"),
        ("rslave", True, "rslave", "rslave"),
        ("rprivate", True, "private", "rprivate"),
        ("rshared", False, "rslave", "rslave"),
        ("shared", False, "rslave", "slave"),
        ("rslave", False, "rslave", "rslave"),
    ],
)
def test_only_a_privileged_container_shares_what_it_mounts(
    word: str, privileged: bool, root: str, bind: str
) -> None:
    built = with_volume(word, "rw", privileged=privileged)
    assert built["linux"]["rootfsPropagation"] == root
    assert built["mounts"][0]["options"] == ["rbind", bind, "rw"]


@pytest.mark.parametrize("privileged", [True, False])
def test_block_devices_are_for_privileged_containers_only(privileged: bool) -> None:
    rules = with_volume("rshared", privileged=privileged)["linux"]["resources"]["devices"]
    block = [(rule["major"], rule["access"]) for rule in rules if rule.get("type") == "b"]
    assert block == ([(253, "rwm"), (43, "rwm")] if privileged else [])


def test_the_report_device_is_for_privileged_containers_only() -> None:
    text = str(build_container(PLAN))
    assert "sev-guest" not in text
    assert "/agent" not in text


def test_a_bind_is_built_from_its_pin_or_not_at_all() -> None:
    with pytest.raises(KeyError):
        build_container(replace(PLAN, pins={}))


def test_a_shared_pid_namespace() -> None:
    names = Namespaces("/ipc", "/uts", "/net", "/pid")
    built: Any = build_container(replace(PLAN, namespaces=names))
    assert built["linux"]["namespaces"][-1] == {"type": "pid", "path": "/pid"}


def test_the_context_variable_is_the_agents() -> None:
    plan = replace(
        PROCESS, env=("UVM_SECURITY_CONTEXT_DIR=/evil", "A=1", "UVM_SECURITY_CONTEXT_DIR")
    )
    assert build_process(plan, "/security-context-1")["env"] == [
        "A=1",
        "UVM_SECURITY_CONTEXT_DIR=/security-context-1",
    ]


@pytest.mark.parametrize(
    ("terminal", "size", "wanted"),
    [(True, (80, 25), {"width": 80, "height": 25}), (True, (0, 0), None), (False, (80, 25), None)],
)
def test_terminal_size(terminal: bool, size: tuple[int, int], wanted: object) -> None:
    built = build_process(replace(PROCESS, terminal=terminal, size=size), None)
    assert built.get("consoleSize") == wanted


HAS = Machine(memory=1 << 30, cpus=2)


@pytest.mark.parametrize(
    ("request_", "limits"),
    [
        (ResourceRequest(), Limits()),
        (ResourceRequest(memory_limit=1 << 40), Limits(memory_max=1 << 30)),
        (ResourceRequest(memory_limit=1), Limits(memory_max=4 << 20)),
        (ResourceRequest(memory_limit=-1), Limits(memory_max=-1)),
        (ResourceRequest(memory_reservation=1 << 40), Limits(memory_low=1 << 30)),
        (ResourceRequest(cpu_shares=1024), Limits(cpu_weight=39)),
        (ResourceRequest(cpu_shares=2**63), Limits(cpu_weight=10000)),
        (ResourceRequest(cpu_quota=10**9), Limits(cpu_quota=200_000)),
        (ResourceRequest(cpu_quota=5), Limits(cpu_quota=1000)),
        (ResourceRequest(cpu_quota=-1), Limits(cpu_quota=-1)),
        (ResourceRequest(cpu_quota=5000, cpu_period=1), Limits(cpu_quota=2000, cpu_period=1000)),
        (ResourceRequest(cpus="0-63"), Limits(cpus="0,1")),
        (ResourceRequest(cpus="1,5"), Limits(cpus="1")),
        (ResourceRequest(cpus="12-15"), Limits()),
        (ResourceRequest(pids_limit=10**9), Limits(pids_max=4_194_304)),
        (ResourceRequest(pids_limit=-1), Limits(pids_max=-1)),
    ],
)
def test_bounds(request_: ResourceRequest, limits: Limits) -> None:
    assert bounded(request_, HAS) == limits


@pytest.mark.parametrize("cpus", ["a", "0-", "-1", "0,,1", "0 1", "1" * 2000])
def test_processor_lists(cpus: str) -> None:
    with pytest.raises(Exception, match="processors"):
        bounded(ResourceRequest(cpus=cpus), HAS)


def test_no_limit_is_left_out() -> None:
    assert oci_resources(Limits(memory_max=-1, cpu_quota=-1, pids_max=-1)) == {}
