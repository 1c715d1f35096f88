"""Input documents, one golden one for each point (policy.md 6), and in the form that the gate checks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_api.gen.parma.agent.v1 import (
    ExecExternalRequest,
    ForwardPortRequest,
    MountScratchRequest,
)
from parma_api.ids import ContainerId, RootHash, SandboxId
from parma_api.policy.decision import PointRequest
from parma_api.policy.defaults import default_sets
from parma_api.policy.inputs import check_input
from parma_api.policy.points import Point
from parma_guest.oci import mounts
from parma_guest.oci.parse import parse_container, parse_exec
from parma_guest.oci.users import Identities, Identity
from parma_guest.policy import inputs
from tests.fixtures.group import container_id, oci_document, process

POD = SandboxId("d" * 64)
ONE = ContainerId(container_id(1))
WHO = Identities(Identity(5, "app"), (Identity(6, "apps"), Identity(44, "")), 0o022)
PROCESS = {
    "containerID": ONE,
    "argList": ["sleep"],
    "envList": ["PATH=/usr/bin:/bin"],
    "workingDir": "/",
    "noNewPrivileges": False,
    "user": {"id": "5", "name": "app"},
    "groups": [{"id": "6", "name": "apps"}, {"id": "44", "name": ""}],
    "umask": "0022",
    "capabilities": default_sets(privileged=False),
}


def created() -> PointRequest:
    document: dict[str, Any] = oci_document(ONE)
    document["mounts"] = [
        {
            "destination": "/d",
            "type": "bind",
            "source": "sandbox:///data/../x/",
            "options": ["rbind"],
        }
    ]
    parsed = parse_container(json.dumps(document).encode())
    resolved = mounts.resolve(parsed.mounts, POD)
    network = mounts.network_mounts(resolved, POD, read_only=False)
    facts = inputs.ContainerFacts(ONE, parsed, WHO, (*resolved, *network), network)
    return inputs.create_container(facts, POD, privileged=True)


def execed() -> PointRequest:
    parsed = parse_exec(json.dumps(process()).encode())
    return inputs.exec_process(inputs.ProcessFacts(ONE, parsed, WHO))


CASES: list[tuple[PointRequest, Point, dict[str, object]]] = [
    (
        inputs.mount_scratch(MountScratchRequest(target="/t", encrypted=True, filesystem="ext4")),
        Point.RW_MOUNT_DEVICE,
        {
            "target": "/t",
            "encrypted": True,
            "ensureFilesystem": True,
            "filesystem": "ext4",
            "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
        },
    ),
    (
        inputs.mount_layer("/run/mounts/scsi/m3", RootHash("a" * 64)),
        Point.MOUNT_DEVICE,
        {
            "target": "/run/mounts/scsi/m3",
            "deviceHash": "a" * 64,
            "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
        },
    ),
    (inputs.unmount(Point.UNMOUNT_DEVICE, "/t"), Point.UNMOUNT_DEVICE, {"unmountTarget": "/t"}),
    (
        inputs.scratch_mount("/s", encrypted=True),
        Point.SCRATCH_MOUNT,
        {"target": "/s", "encrypted": True},
    ),
    (
        inputs.mount_overlay(ONE, ("/m2", "/m1"), "/r"),
        Point.MOUNT_OVERLAY,
        {"containerID": ONE, "layerPaths": ["/m2", "/m1"], "target": "/r"},
    ),
    (execed(), Point.EXEC_IN_CONTAINER, PROCESS),
    (
        inputs.exec_external(ExecExternalRequest(args=["a", "b"], env=["C=d"], working_dir="/w")),
        Point.EXEC_EXTERNAL,
        {"argList": ["a", "b"], "envList": ["C=d"], "workingDir": "/w"},
    ),
    (
        inputs.signal_process(ONE, 15, ("app",), first=True),
        Point.SIGNAL_CONTAINER_PROCESS,
        {"containerID": ONE, "signal": 15, "isInitProcess": True, "argList": ["app"]},
    ),
    (inputs.shutdown_container(ONE), Point.SHUTDOWN_CONTAINER, {"containerID": ONE}),
    (inputs.get_properties(), Point.GET_PROPERTIES, {}),
    (inputs.dump_stacks(), Point.DUMP_STACKS, {}),
    (
        inputs.forward_port(ForwardPortRequest(port=80, stream=1)),
        Point.PORT_FORWARD,
        {"port": 80, "protocol": "tcp"},
    ),
]


@pytest.mark.parametrize(("request_", "point", "document"), CASES)
def test_documents(request_: PointRequest, point: Point, document: dict[str, object]) -> None:
    assert request_.point is point
    assert request_.input == document
    check_input(request_.point, request_.input)


def test_create_container() -> None:
    request = created()
    home = f"/run/gcs/c/{POD}"
    network = [
        {
            "destination": f"/etc/{name}",
            "source": f"{home}/{name}",
            "options": ["bind"],
            "type": "bind",
        }
        for name in ("hosts", "hostname", "resolv.conf")
    ]
    assert request.input == {
        **PROCESS,
        "sandboxDir": f"{home}/sandboxMounts",
        "hugePagesDir": f"{home}/hugepages",
        "mounts": [
            {
                "destination": "/d",
                "source": f"{home}/sandboxMounts/x",
                "options": ["rbind"],
                "type": "bind",
            },
            *network,
        ],
        "devices": [],
        "privileged": True,
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
    }
    assert list(request.network_mounts) == network
    check_input(request.point, request.input)
