"""Mounts: how they are judged, and what no policy can allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.ids import SandboxId
from parma_api.status import InvalidArgumentError
from parma_guest.oci.mounts import check, is_bind, judged, network_mounts, resolve
from parma_guest.oci.parse import Mount

POD = SandboxId("d" * 64)
HOME = f"/run/gcs/c/{POD}"


def bound(source: str, options: tuple[str, ...] = ("rbind", "rshared", "rw")) -> Mount:
    return Mount("/data", "bind", source, options)


@pytest.mark.parametrize(
    ("source", "resolved"),
    [
        ("sandbox:///data/x", f"{HOME}/sandboxMounts/data/x"),
        ("sandbox:///data//./x/", f"{HOME}/sandboxMounts/data/x"),
        ("sandbox:///data/../x", f"{HOME}/sandboxMounts/x"),
        ("hugepages:///2M/x", f"{HOME}/hugepages/2M/x"),
        ("/run/../run/gcs/c/x/", "/run/gcs/c/x"),
        ("proc", "proc"),
        ("", ""),
        ("relative/../x", "relative/../x"),
    ],
)
def test_sources(source: str, resolved: str) -> None:
    assert resolve([bound(source)], POD)[0].source == resolved


@pytest.mark.parametrize(
    "source",
    [
        "sandbox:///../hosts",
        "sandbox:///..",
        "sandbox:///",
        "sandbox://",
        "sandbox://x",
        "sandbox://-evil/x",
        "hugepages:///../sandboxMounts/x",
        "plan9://share",
    ],
)
def test_prefixes_do_not_lead_out(source: str) -> None:
    with pytest.raises(InvalidArgumentError):
        resolve([bound(source)], POD)


@pytest.mark.parametrize(
    "source",
    [f"{HOME}/sandboxMounts/x", f"{HOME}/hugepages/x", f"{HOME}/hosts", f"{HOME}/resolv.conf"],
)
def test_the_pods_own_can_be_bound(source: str) -> None:
    check([bound(source)], POD)


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/etc/passwd",
        HOME,
        f"{HOME}/scratch/{'c' * 64}/upper",
        f"{HOME}/sandboxMounts",
        f"{HOME}/hosts/x",
        f"{HOME}-other/sandboxMounts/x",
        f"/run/gcs/c/{'e' * 64}/sandboxMounts/x",
        "/run/mounts/scsi/m1",
        "/dev/vda",
        "/dev/vport1p1",
        "/run/parma/crun",
        "/proc/1/root",
        "",
        "relative",
    ],
)
def test_nothing_else_can(source: str) -> None:
    with pytest.raises(InvalidArgumentError, match="none of the pod's own"):
        check([bound(source)], POD)


@pytest.mark.parametrize(
    "mount",
    [
        Mount("data", "tmpfs", "tmpfs", ()),
        Mount("", "tmpfs", "tmpfs", ()),
        Mount("/x", "ext4", "/dev/sda", ()),
        Mount("/x", "9p", "share", ()),
        Mount("/x", "overlay", "overlay", ("lowerdir=/",)),
        Mount("/x", "virtiofs", "host", ()),
        Mount("/x", "debugfs", "none", ()),
        Mount("/x", "tmpfs", "/etc", ()),
        Mount("/x", "tmpfs", "tmpfs", ("size=1,uid=0",)),
        Mount("/x", "tmpfs", "tmpfs", ('context="x"',)),
        Mount("/x", "bind", f"{HOME}/sandboxMounts/x", ("idmap",)),
        Mount("/x", "bind", f"{HOME}/sandboxMounts/x", ("copy-symlink",)),
        Mount("/x", "tmpfs", "/etc", ("bind",)),  # the options decide as well
        Mount("/x", "ext4", f"{HOME}/sandboxMounts/x", ("rbind",)),
    ],
)
def test_refused(mount: Mount) -> None:
    with pytest.raises(InvalidArgumentError):
        check([mount], POD)


def test_options_make_a_bind() -> None:
    assert is_bind(Mount("/x", "none", "y", ("rbind",)))
    assert is_bind(Mount("/x", "bind", "y", ()))
    assert not is_bind(Mount("/x", "tmpfs", "y", ("ro",)))


def test_network_files() -> None:
    own = Mount("/etc/hosts", "bind", f"{HOME}/sandboxMounts/hosts", ("rbind",))
    found = network_mounts([own], POD, read_only=False)
    assert [judged(mount) for mount in found] == [
        {
            "destination": "/etc/hostname",
            "source": f"{HOME}/hostname",
            "options": ["bind"],
            "type": "bind",
        },
        {
            "destination": "/etc/resolv.conf",
            "source": f"{HOME}/resolv.conf",
            "options": ["bind"],
            "type": "bind",
        },
    ]
    assert network_mounts([], POD, read_only=True)[0].options == ("bind", "ro")


@given(st.text(alphabet="./ax", max_size=20), st.sampled_from(["sandbox://", "hugepages://", ""]))
def test_whatever_the_text_a_bind_stays_inside(text: str, prefix: str) -> None:
    try:
        found = resolve([bound(prefix + text)], POD)
        check(found, POD)
    except InvalidArgumentError:
        return
    assert found[0].source.startswith((f"{HOME}/sandboxMounts/", f"{HOME}/hugepages/"))
    assert ".." not in found[0].source.split("/")
