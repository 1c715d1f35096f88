"""Proof that it is real: where the process runs, what lies under its files, and what the host can see of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_api.snp.report import host_data_of, parse
from parma_shim.demo import images
from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd
from parma_shim.demo.group import Member

from .conftest import Pod, Store, policy_text

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
CANARY = os.urandom(16).hex()
LOOP = ("/bin/sh", "-c", f"echo {CANARY} > /canary; sync; exec sleep 100000")
BOX = Member("box", images.BUSYBOX, LOOP)


@pytest.fixture(scope="module")
def policy(store: Store) -> bytes:
    return policy_text(store.container("box", images.BUSYBOX, LOOP, execs=[["/bin/sh"]]))


@pytest.fixture(scope="module")
def pod(start_pod: Callable[[bytes], Pod], policy: bytes) -> Pod:
    return start_pod(policy)


@pytest.fixture(scope="module")
def box(pod: Pod) -> str:
    return pod.run(BOX)


def test_the_process_is_not_in_the_hosts_proc(pod: Pod, box: str) -> None:
    assert CANARY in pod.sh(box, "cat /proc/1/cmdline; cat /canary")
    found = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if CANARY.encode() in read(path) and b"crictl" not in read(path)
    ]
    assert found == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_kernel_and_boot_are_not_the_hosts(pod: Pod, box: str) -> None:
    kernel, boot = pod.sh(box, "uname -r; cat /proc/sys/kernel/random/boot_id").split()
    assert kernel != os.uname().release
    assert boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_all_processors_came_up(pod: Pod, box: str) -> None:
    """The stub image's kernel starts on one and gets the others later (guest/image/init/cpus.c)."""
    assert pod.sh(box, "cat /sys/devices/system/cpu/online").strip() == "0-1"


def test_verity_lies_under_the_root_and_crypt_over_integrity_under_scratch(
    pod: Pod, box: str
) -> None:
    listing = pod.sh(
        box, "for d in /sys/block/dm-*; do echo $(cat $d/dm/name) $(ls $d/slaves); done; mount"
    )
    below = dict(line.split() for line in listing.splitlines() if re.fullmatch(r"\S+ \S+", line))
    names = set(below)
    assert any(name.startswith("layer-") for name in names)
    scratch = next(name for name in names if name.startswith("scratch-"))
    integrity = next(name for name in names if name.startswith("integrity-"))
    assert below[scratch].startswith("dm-"), "scratch stands on another mapping"
    assert below[integrity].startswith("sd"), "integrity stands on the disk"
    root = next(line for line in listing.splitlines() if " on / type " in line)
    assert "type overlay" in root
    assert "/run/mounts/scsi/m" in root


def test_the_report_binds_the_policy(daemon: PrivateContainerd, pod: Pod, policy: bytes) -> None:
    del pod
    digest = hashlib.sha256(policy).digest()
    reports = [path.read_bytes() for path in (daemon.folder / "run").glob("*/report.bin")]
    assert digest in [host_data_of(report) for report in reports]
    assert all(parse(report).version == 3 for report in reports)


def test_scratch_on_the_host_holds_no_canary(pod: Pod, box: str) -> None:
    written = 4 << 20
    wrote = f"yes {CANARY} | head -c {written} > /many; sync; cat /canary; wc -c < /many"
    assert pod.sh(box, wrote).split() == [CANARY, str(written)]
    seen = 0
    for link in Path(f"/proc/{pod.state['vmm_pid']}/fd").iterdir():
        target = str(link.readlink())
        if "(deleted)" not in target or link.stat().st_size < 1 << 20:
            continue
        seen += allocated_bytes(link, CANARY.encode())
    assert seen > written, "the scratch disk was found, and what was written is on it"


def allocated_bytes(link: Path, canary: bytes) -> int:
    """Reads what a sparse file holds; fails where the canary stands in it."""
    total, at = 0, 0
    with link.open("rb") as disk:
        size = os.fstat(disk.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(disk.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(disk.fileno(), at, os.SEEK_HOLE)
            data = os.pread(disk.fileno(), end - at, at)
            assert canary not in data
            total, at = total + len(data), end
    return total


def test_a_flipped_bit_in_the_cache_is_an_error_and_never_a_wrong_byte(
    start_pod: Callable[[bytes], Pod], daemon: PrivateContainerd, store: Store
) -> None:
    command = ("/bin/sh", "-c", "sleep 100000")
    policy = policy_text(store.container("web", images.NGINX, command, execs=[["/bin/sh"]]))
    pod = start_pod(policy)
    web = pod.run(Member("web", images.NGINX, command))
    page = b"Served from inside a measured utility VM"
    assert page.decode() in pod.sh(web, "cat /srv/index.html")
    pod.remove()
    offset, image = cached_page(daemon.folder / "lib", page)
    flip(image, offset)
    try:
        again = start_pod(policy)
        web = again.run(Member("web", images.NGINX, command))
        output = again.sh(web, "cat /srv/index.html 2>&1 || true")
    finally:
        flip(image, offset)
    assert "Input/output error" in output
    assert "utility VM" not in output


def cached_page(folder: Path, page: bytes) -> tuple[int, Path]:
    for path in folder.rglob("*"):
        if (
            path.is_file()
            and path.stat().st_size > 4096
            and (at := path.read_bytes().find(page)) > 0
        ):
            return at, path
    raise AssertionError("no cached layer holds the page")


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 1,)))


def test_a_denial_says_what_differs_and_harms_nothing(pod: Pod, box: str) -> None:
    with pytest.raises(CommandFailedError) as caught:
        pod.daemon.crictl("exec", "--sync", box, "/bin/cat", "/canary")
    assert "exec_in_container denied by policy: process.command" in caught.value.message
    assert 'got ["/bin/cat","/canary"]' in caught.value.message
    assert CANARY in pod.sh(box, "cat /canary")
