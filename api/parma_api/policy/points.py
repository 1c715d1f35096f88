"""Enforcement points: the names, and since which API version with which default (policy.md, section 3).

`policy_bundles/api/api.rego` holds the same table for the evaluator; a test and the build compare the two, so that
neither can move alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

API_VERSION: Final = "0.12.0"
"""The newest `api_version` that a policy may state."""
FRAMEWORK_VERSION: Final = "0.5.0"
"""The newest `framework_version`; older generations are read as policy.md section 12 says."""


class Point(enum.StrEnum):
    """One kind of request of the host that the policy is asked about."""

    MOUNT_DEVICE = "mount_device"
    UNMOUNT_DEVICE = "unmount_device"
    RW_MOUNT_DEVICE = "rw_mount_device"
    RW_UNMOUNT_DEVICE = "rw_unmount_device"
    MOUNT_BLOCKDEV = "mount_blockdev"
    UNMOUNT_BLOCKDEV = "unmount_blockdev"
    SCRATCH_MOUNT = "scratch_mount"
    SCRATCH_UNMOUNT = "scratch_unmount"
    MOUNT_OVERLAY = "mount_overlay"
    UNMOUNT_OVERLAY = "unmount_overlay"
    CREATE_CONTAINER = "create_container"
    EXEC_IN_CONTAINER = "exec_in_container"
    SIGNAL_CONTAINER_PROCESS = "signal_container_process"
    SHUTDOWN_CONTAINER = "shutdown_container"
    EXEC_EXTERNAL = "exec_external"
    PLAN9_MOUNT = "plan9_mount"
    PLAN9_UNMOUNT = "plan9_unmount"
    GET_PROPERTIES = "get_properties"
    DUMP_STACKS = "dump_stacks"
    RUNTIME_LOGGING = "runtime_logging"
    HOST_NETWORK = "host_network"
    LOAD_FRAGMENT = "load_fragment"
    LOAD_TRANSPARENCY_TRUST_LIST = "load_transparency_trust_list"
    PORT_FORWARD = "port_forward"


class Missing(enum.StrEnum):
    """What an older policy that does not define a point gets."""

    ALLOW = "allow"
    REFUSE = "refuse"
    FRAMEWORK = "framework"


@dataclass(frozen=True, slots=True)
class PointRow:
    """One row of the API table."""

    introduced: str
    missing: Missing
    optional: bool = False
    """Ours only: undefined is a refusal at this point (`policy.default_deny`), whatever the policy's version."""


TABLE: Final[dict[Point, PointRow]] = {
    Point.MOUNT_DEVICE: PointRow("0.1.0", Missing.REFUSE),
    Point.MOUNT_OVERLAY: PointRow("0.1.0", Missing.REFUSE),
    Point.CREATE_CONTAINER: PointRow("0.1.0", Missing.REFUSE),
    Point.UNMOUNT_DEVICE: PointRow("0.2.0", Missing.ALLOW),
    Point.EXEC_IN_CONTAINER: PointRow("0.2.0", Missing.ALLOW),
    Point.EXEC_EXTERNAL: PointRow("0.3.0", Missing.ALLOW),
    Point.SHUTDOWN_CONTAINER: PointRow("0.4.0", Missing.ALLOW),
    Point.SIGNAL_CONTAINER_PROCESS: PointRow("0.5.0", Missing.ALLOW),
    Point.PLAN9_MOUNT: PointRow("0.6.0", Missing.ALLOW),
    Point.PLAN9_UNMOUNT: PointRow("0.6.0", Missing.ALLOW),
    Point.UNMOUNT_OVERLAY: PointRow("0.6.0", Missing.ALLOW),
    Point.GET_PROPERTIES: PointRow("0.7.0", Missing.ALLOW),
    Point.DUMP_STACKS: PointRow("0.7.0", Missing.ALLOW),
    Point.RUNTIME_LOGGING: PointRow("0.8.0", Missing.ALLOW),
    Point.LOAD_FRAGMENT: PointRow("0.9.0", Missing.REFUSE),
    Point.SCRATCH_MOUNT: PointRow("0.10.0", Missing.ALLOW),
    Point.SCRATCH_UNMOUNT: PointRow("0.10.0", Missing.ALLOW),
    Point.RW_MOUNT_DEVICE: PointRow("0.11.0", Missing.FRAMEWORK),
    Point.RW_UNMOUNT_DEVICE: PointRow("0.11.0", Missing.FRAMEWORK),
    Point.MOUNT_BLOCKDEV: PointRow("0.11.1", Missing.REFUSE),
    Point.UNMOUNT_BLOCKDEV: PointRow("0.11.1", Missing.REFUSE),
    Point.HOST_NETWORK: PointRow("0.12.0", Missing.REFUSE),
    Point.LOAD_TRANSPARENCY_TRUST_LIST: PointRow("0.12.0", Missing.REFUSE),
    Point.PORT_FORWARD: PointRow("0.12.0", Missing.REFUSE, optional=True),
}
