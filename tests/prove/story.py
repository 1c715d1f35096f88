"""What is explored: a policy of two containers that share a layer, a fragment with a third, and all that a host asks.

Container ids are interchangeable, which the exploration uses; everything else has one name.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import betterproto

from parma_api.gen.parma.agent import v1
from parma_api.policy.points import Point
from parma_api.volumes import layer_path, pod_directory, root_path, scratch_path
from tests.fixtures.group import POD, description, oci_document, process
from tests.policy.test_fragments import ISSUER, envelope

BASE, WEB, JOB, ROGUE = ("a1" * 32, "b2" * 32, "c3" * 32, "ee" * 32)
DISKS: Final = (BASE, WEB, JOB, ROGUE)
"""Root hash that the disk at each LUN claims."""
SCRATCH_LUN: Final = 9
IDS: Final = ("1" * 64, "2" * 64)
WEB_LAYERS, JOB_LAYERS, SIDE_LAYERS = (BASE, WEB), (BASE, JOB), (BASE,)
"""Base first."""
COMMANDS: Final = {"web": ("/bin/web",), "job": ("/bin/job",), "side": ("/bin/side",)}
PROBE, EVIL = ("/bin/probe",), ("/bin/evil",)
LAYERS: Final = {"web": WEB_LAYERS, "job": JOB_LAYERS, "side": SIDE_LAYERS}
"""What the policy, and its fragment, name: everything else is a fault."""


def _described(name: str) -> dict[str, Any]:
    return description(
        name=name,
        layers=list(LAYERS[name]),
        command=list(COMMANDS[name]),
        exec_processes=[{"command": list(PROBE), "signals": [9]}],
        signals=[9, 15],
    )


def policy() -> bytes:
    """The tenant's text."""
    fragments = [{"issuer": ISSUER, "feed": "side", "minimum_svn": 2, "includes": ["containers"]}]
    bound = "\n".join(f"{point} := data.framework.{point}" for point in Point)
    return (
        'package policy\n\napi_version := "0.12.0"\nframework_version := "0.5.0"\n\n'
        f"containers := {json.dumps([_described('web'), _described('job')])}\n"
        f"fragments := {json.dumps(fragments)}\n{bound}\n\nreason := data.framework.reason\n"
    ).encode()


def fragment(feed: str = "side") -> bytes:
    """Signed; another feed than `side` is refused."""
    text = (
        f'package sidecar\nsvn := 3\nframework_version := "0.5.0"\n'
        f"containers := {json.dumps([_described('side')])}\n"
    )
    return envelope(text.encode(), feed)


class Mishap(enum.Enum):
    """What goes wrong with a request that is allowed."""

    NONE = ""
    FAILS = "an operation fails"
    UNDO_FAILS = "an operation fails, and its undo"
    KILLED = "OPA is killed between decision and commit"


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that the host asks."""

    name: str
    method: str
    build: Callable[[], betterproto.Message]


def requests() -> tuple[Request, ...]:
    """All of them, in a fixed order."""
    return (*_devices(), *(r for number in range(2) for r in _container(number)), *_fragments())


def _devices() -> tuple[Request, ...]:
    pod = pod_directory(POD)
    mounts = [
        _mount(f"mount disk {lun} at its place", lun, layer_path(lun)) for lun in range(len(DISKS))
    ]
    unmounts = [
        Request(
            f"unmount m{lun}",
            "UnmountLayer",
            lambda lun=lun: v1.UnmountLayerRequest(target=layer_path(lun)),
        )
        for lun in range(len(DISKS))
    ]
    return (
        *mounts,
        _mount("mount disk 1 at the place of disk 0", 1, layer_path(0)),
        _mount("mount disk 0 elsewhere", 0, "/run/mounts/scsi/x"),
        *unmounts,
        Request("mount scratch", "MountScratch", lambda: _scratch(pod)),
        Request(
            "mount scratch of another pod",
            "MountScratch",
            lambda: _scratch("/run/gcs/c/" + "f" * 64),
        ),
        Request("unmount scratch", "UnmountScratch", lambda: v1.UnmountScratchRequest(target=pod)),
    )


def _mount(name: str, lun: int, target: str) -> Request:
    return Request(
        name,
        "MountLayer",
        lambda: v1.MountLayerRequest(device=v1.ScsiAddress(0, lun), target=target),
    )


def _scratch(target: str) -> v1.MountScratchRequest:
    return v1.MountScratchRequest(
        device=v1.ScsiAddress(0, SCRATCH_LUN), target=target, encrypted=True, filesystem="ext4"
    )


_OVERLAYS: Final = {
    "web's layers": (1, 0),
    "job's layers": (2, 0),
    "web's layers upside down": (0, 1),
    "the base alone": (0,),
    "a rogue layer on the base": (3, 0),
}
"""Top first, by place."""


def _container(number: int) -> tuple[Request, ...]:
    name, who = IDS[number], f"id {number}"
    other = IDS[1 - number]
    overlays = [
        Request(
            f"{who}: overlay of {what}",
            "MountOverlay",
            lambda places=places: v1.MountOverlayRequest(
                container_id=name,
                layer_paths=[layer_path(place) for place in places],
                target=root_path(name),
                scratch_path=scratch_path(POD, name),
            ),
        )
        for what, places in _OVERLAYS.items()
    ]
    creates = [
        Request(
            f"{who}: create {command[0]}", "CreateContainer", lambda c=command: _create(name, c)
        )
        for command in (*COMMANDS.values(), EVIL)
    ]
    execs = [
        Request(f"{who}: exec {command[0]}", "ExecProcess", lambda c=command: _exec(name, c))
        for command in (PROBE, EVIL)
    ]
    signals = [
        Request(
            f"{who}: signal {signal}",
            "SignalProcess",
            lambda s=signal: v1.SignalProcessRequest(container_id=name, signal=s),
        )
        for signal in (9, 10)
    ]
    return (
        *overlays,
        _unmount_overlay(f"{who}: unmount overlay", name, root_path(name)),
        _unmount_overlay(f"{who}: unmount the other's overlay", name, root_path(other)),
        *creates,
        *execs,
        *signals,
        Request(
            f"{who}: shutdown",
            "ShutdownContainer",
            lambda: v1.ShutdownContainerRequest(container_id=name),
        ),
    )


def _unmount_overlay(name: str, container: str, target: str) -> Request:
    return Request(
        name,
        "UnmountOverlay",
        lambda: v1.UnmountOverlayRequest(container_id=container, target=target),
    )


def _create(container: str, command: tuple[str, ...]) -> v1.CreateContainerRequest:
    document = oci_document(container, process=process(command))
    return v1.CreateContainerRequest(container_id=container, oci_spec=json.dumps(document).encode())


def _exec(container: str, command: tuple[str, ...]) -> v1.ExecProcessRequest:
    return v1.ExecProcessRequest(
        container_id=container, exec_id="e", oci_process=json.dumps(process(command)).encode()
    )


def _fragments() -> tuple[Request, ...]:
    good, foreign = fragment(), fragment("other")
    return (
        Request("load the fragment", LOAD, lambda: v1.LoadFragmentRequest(envelope=good)),
        Request(
            "load a fragment of another feed",
            LOAD,
            lambda: v1.LoadFragmentRequest(envelope=foreign),
        ),
    )


LOAD: Final = "LoadFragment"
