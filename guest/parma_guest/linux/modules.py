"""Kernel modules, loaded by group after the agent's first answer.

The image's list has lines `group level path`; a module needs the lower levels of its group only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from errno import EEXIST
from itertools import groupby

from parma_api.status import NotFoundError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.libc import SYS_FINIT_MODULE, syscall

LIST = "/usr/lib/parma/modules.list"


def parse_list(text: str, group: str) -> list[list[str]]:
    """The paths of a group by level, lowest first. Raises NotFoundError for a group that has none."""
    rows = [line.split(maxsplit=2) for line in text.splitlines() if line.strip()]
    wanted = sorted((int(level), path) for name, level, path in rows if name == group)
    if not wanted:
        raise NotFoundError(f"the image has no kernel modules of group {group}")
    return [[path for _, path in level] for _, level in groupby(wanted, key=lambda row: row[0])]


def load(path: str) -> None:
    """finit_module(2); one that is loaded is fine. Raises KernelError."""
    with kernel_call("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall("finit_module", SYS_FINIT_MODULE, fd, b"", 0, what=path)
    except KernelError as error:
        if error.number != EEXIST:
            raise
    finally:
        os.close(fd)


def load_groups(groups: Iterable[str], list_path: str = LIST) -> None:
    """Load the groups in turn, the modules of one level side by side. Blocks; call it in a thread."""
    with (
        kernel_call("open", list_path),
        open(list_path, encoding="ascii") as file,  # noqa: PTH123 (pathlib costs an import)
    ):
        text = file.read()
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="modules") as pool:
        for group in groups:
            for level in parse_list(text, group):
                list(pool.map(load, level))
