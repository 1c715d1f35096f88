"""Containers of the pod that several modules share: a VM costs ten seconds."""

from __future__ import annotations

from parma_shim.demo import images
from parma_shim.demo.group import Member
from parma_tenant.generate import model, rego

from .conftest import Store

SHELL = ("/bin/sh",)
CAT = ("/bin/cat",)
LONG = ("/bin/sleep", "777")
FOREVER = ("/bin/sleep", "1000000")
BOX = Member("box", images.BUSYBOX, FOREVER)
HOG = Member("hog", images.BUSYBOX, ("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=20M"))
LOCKED = Member(
    "locked", images.BUSYBOX, ("/bin/sh", "-c", "id -u; id -g; echo x > /etc/x || echo read-only")
)
QUIET = Member("quiet", images.BUSYBOX, ("/bin/echo", "a secret"))
SERVER = Member(
    "server",
    images.BUSYBOX,
    ("/bin/sh", "-c", "while true; do echo hello from the guest | nc -l -p 8080; done"),
)
READER = Member("reader", images.BUSYBOX, FOREVER)
WRITER = Member("writer", images.BUSYBOX, FOREVER)

CONFIG_MAP = ("/etc/settings", "sandbox:///volumes/configmap/settings", "ro")
SECRET = ("/etc/token", "sandbox:///volumes/secret/token", "ro")
SCRATCH = ("/shared", "sandbox:///volumes/empty-dir/shared", "rw")
FORWARDED_PORT, DENIED_PORT = 8080, 8081


def _mounts(*volumes: tuple[str, str, str]) -> tuple[model.MountRule, ...]:
    return tuple(
        model.MountRule(destination, source, ("rbind", "rprivate", access))
        for destination, source, access in volumes
    )


def shared_policy(store: Store) -> bytes:
    """What the shared pod may do."""

    def described(member: Member, **changes: object) -> model.Container:
        return store.container(
            member.name, member.image, member.command, execs=[SHELL, CAT, LONG], **changes
        )

    containers = (
        described(BOX),
        described(HOG),
        described(LOCKED),
        described(QUIET, allow_stdio_access=False),
        described(SERVER),
        described(READER, mounts=_mounts(CONFIG_MAP, SECRET, SCRATCH)),
        described(WRITER, mounts=_mounts(SCRATCH)),
    )
    policy = model.Policy(
        containers,
        flags=frozenset({"allow_properties_access"}),
        allow_port_forward=(FORWARDED_PORT,),
    )
    return rego.render(policy).encode()
