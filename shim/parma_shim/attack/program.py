"""The one program inside the attacker's layers: 269 bytes of machine code, so that no package is needed.

    /tool                    waits for ever
    /tool SOURCE             copies SOURCE to standard output, past every cache (O_DIRECT)
    /tool SOURCE TARGET      copies it to TARGET, and syncs
    /tool a b c              opens an AF_VSOCK socket
    /tool a b c d            makes a block device node and opens it for writing

The exit status is 0, or the number of the error: 5 is EIO, 84 EILSEQ, 1 EPERM. So what a container saw of a tampered
disk reaches the host as a number, without a shell and without standard streams.
"""

from __future__ import annotations

import struct

TOOL = "/tool"
CANARY = "/canary"
COPY = "/copy"
CANARY_TEXT = b"canary: no host reads this. " * 2341
"""64 KiB: more than a file system would keep beside its inode, and easily found on a disk."""
EPERM, EIO, EAFNOSUPPORT, EILSEQ = 1, 5, 97, 84

_BASE = 0x400000
_BUFFER = 0x600000
_PAGE = 4096
_EHDR, _PHDR = 64, 56

_CODE = (
    bytes.fromhex(
        # count the arguments: rbx = argc
        "488b1c24 4883fb01 0f84f0000000 4883fb04 0f8493000000 4883fb05 0f84a3000000"
        # r13 = 1, or open(argv[2], O_WRONLY|O_CREAT|O_TRUNC, 0600)
        "41bd01000000 4883fb03 7517 488b7c2418 be41020000 ba80010000 e85c000000 4989c5"
        # r12 = open(argv[1], O_DIRECT)
        "488b7c2410 be00400000 e84a000000 4989c4"
        # rbx = read(r12, buffer, 4096); write(r13, buffer, rbx); again while pages are full
        "4c89e7 48c7c600006000 ba00100000 31c0 e836000000 4889c3"
        "4c89ef 48c7c600006000 4889da b801000000 e81c000000 4881fb00100000 74c7"
        # fsync(r13); exit(0)
        "4c89ef b84a000000 0f05 31c0 eb55"
        # open: eax = 2. do: the call; an error ends the program
        "b802000000 0f05 4885c0 7849 c3"
        # socket(AF_VSOCK, SOCK_STREAM, 0); exit(0)
        "bf28000000 be01000000 31d2 b829000000 e8e2ffffff 31c0 eb2e"
        # mknod("/node", S_IFBLK|0600, 8:0); open("/node", O_RDWR)
        "488d3d3b000000 be80610000 ba00080000 b885000000 e8c3ffffff"
        "488d3d20000000 be02000000 e8adffffff 31c0"
        # exit(-eax)
        "f7d8 89c7 b83c000000 0f05"
        # pause() for ever
        "b822000000 0f05 ebf7"
    )
    + b"/node\0"
)


def program() -> bytes:
    """A static ELF executable for x86-64 (System V ABI, chapter 4): code, and one page for the buffer."""
    start = _EHDR + 2 * _PHDR
    size = start + len(_CODE)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + start, _EHDR, 0, 0, _EHDR, _PHDR, 2, 0, 0, 0
    )
    code = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, _PAGE)
    buffer = struct.pack("<IIQQQQQQ", 1, 6, 0, _BUFFER, _BUFFER, 0, _PAGE, _PAGE)
    return header + code + buffer + _CODE
