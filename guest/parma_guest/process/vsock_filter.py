"""The agent's own seccomp filter, beneath whatever profile a policy names: no container speaks to the channel (K20).

It is installed in the one thread that starts programs, so crun inherits it, and everything that crun starts, privileged
containers too. The profile that the policy judged stays exactly as it was hashed. Denied are sockets of AF_VSOCK, and
the two ways around a check of socket(2)'s first argument: socketcall(2) of 32-bit programs, whose arguments lie in
memory, and io_uring, whose IORING_OP_SOCKET no filter sees. Pure, but for `install`.
"""

from __future__ import annotations

import struct
from typing import Final

from parma_guest.linux.libc import syscall

AF_VSOCK: Final = 40
_EAFNOSUPPORT, _ENOSYS = 97, 38
# arch/x86/entry/syscalls; include/uapi/linux/audit.h
_SOCKET_64, _SOCKET_32, _SOCKETCALL_32, _IO_URING_SETUP = 41, 359, 102, 425
_SYS_SOCKET = 1
_ARCH_X86_64, _ARCH_I386 = 0xC000003E, 0x40000003
_NOT_X32 = 0xBFFFFFFF
"""Clears the bit that marks the x32 ABI's numbers."""
# include/uapi/linux/bpf_common.h, seccomp.h
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16
_SYS_SECCOMP, _SET_MODE_FILTER, _SPEC_ALLOW = 317, 1, 4

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: struct sock_filter."""


def program() -> tuple[Instruction, ...]:
    """Instructions in order. Only the lower half of an argument is looked at: the kernel takes an int."""
    lines: tuple[tuple[str, int, str, str, int], ...] = (
        # label, code, if true, if false, operand; "" goes on with the next line
        ("", _LOAD, "", "", _ARCH),
        ("", _JUMP_IF_EQUAL, "native", "", _ARCH_X86_64),
        ("", _JUMP_IF_EQUAL, "old", "kill", _ARCH_I386),
        ("native", _LOAD, "", "", _NUMBER),
        ("", _AND, "", "", _NOT_X32),
        ("", _JUMP_IF_EQUAL, "family", "", _SOCKET_64),
        ("", _JUMP_IF_EQUAL, "no_call", "allow", _IO_URING_SETUP),
        ("old", _LOAD, "", "", _NUMBER),
        ("", _JUMP_IF_EQUAL, "family", "", _SOCKET_32),
        ("", _JUMP_IF_EQUAL, "no_call", "", _IO_URING_SETUP),
        ("", _JUMP_IF_EQUAL, "", "allow", _SOCKETCALL_32),
        ("", _LOAD, "", "", _ARGUMENT_0),
        ("", _JUMP_IF_EQUAL, "no_family", "allow", _SYS_SOCKET),
        ("family", _LOAD, "", "", _ARGUMENT_0),
        ("", _JUMP_IF_EQUAL, "no_family", "allow", AF_VSOCK),
        ("allow", _RETURN, "", "", _ALLOW),
        ("no_family", _RETURN, "", "", _ERRNO | _EAFNOSUPPORT),
        ("no_call", _RETURN, "", "", _ERRNO | _ENOSYS),
        ("kill", _RETURN, "", "", _KILL),
    )
    places = {label: index for index, (label, *_) in enumerate(lines) if label}

    def offset(label: str, index: int) -> int:
        return places[label] - index - 1 if label else 0

    return tuple(
        (code, offset(yes, index), offset(no, index), operand)
        for index, (_, code, yes, no, operand) in enumerate(lines)
    )


def encode(instructions: tuple[Instruction, ...]) -> bytes:
    """struct sock_filter, one after the other."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def install() -> None:
    """Put the filter in force for the calling thread and all that it starts. Raises KernelError."""
    import ctypes

    code = bytearray(encode(program()))
    buffer = (ctypes.c_char * len(code)).from_buffer(code)
    header = bytearray(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)))
    syscall("seccomp", _SYS_SECCOMP, _SET_MODE_FILTER, _SPEC_ALLOW, header, what="AF_VSOCK filter")
