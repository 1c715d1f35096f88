"""/dev/net/tun: a tap whose frames QEMU reads (include/uapi/linux/if_tun.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from parma_shim.net.errors import NetworkError, NetworkSetupError

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
"""Checksum and segmentation offload between the host's stack and the guest's."""


def create_tap(name: str) -> int:
    """A tap in the calling thread's namespace, as a descriptor; the interface lives as long as it is open.

    Raises NetworkSetupError without /dev/net/tun, NetworkError when the name is taken or the kernel refuses.
    """
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NetworkSetupError(
            f"/dev/net/tun cannot be opened: {error.strerror}; load the module tun"
        ) from error
    request = struct.pack("=16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    try:
        fcntl.ioctl(fd, TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        taken = (
            " (the name is taken: has this pod a VM already?)" if error.errno == errno.EBUSY else ""
        )
        raise NetworkError(f"the tap {name} cannot be made: {error.strerror}{taken}") from error
    return fd
