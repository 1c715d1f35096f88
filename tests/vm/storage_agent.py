"""Runs in the guest in the agent's place: plays the storage code and prints what it saw, one JSON line for each step.

A line `HOST <word>` asks the test on the host to do something; the guest waits for a line on the serial console.
"""

# ruff: noqa: ASYNC230, ASYNC240, E402, PTH103, PTH110, PTH123, PTH208, SIM115

import sys

sys.dont_write_bytecode = True
sys.path[:0] = ["/usr/lib/parma", "/usr/lib/parma/site"]

import asyncio
import json
import os
import socket
import time
import traceback

from parma_api.status import ApiError
from parma_guest.clock import check as check_clock
from parma_guest.linux.blockdev import ScsiAddress, drop_cache, find_disk, opened
from parma_guest.linux.cgroup import Cgroup, Limits
from parma_guest.linux.devmapper import DeviceMapper, make_control_node
from parma_guest.linux.errno import KernelError
from parma_guest.linux.modules import load, load_groups
from parma_guest.linux.mount import mount as mount_fs
from parma_guest.linux.netlink import Route
from parma_guest.linux.rtc import read_rtc
from parma_guest.net.config import InterfaceRequest, RouteRequest
from parma_guest.net.service import Network
from parma_guest.storage.claims import Claim
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.service import Storage

POD = "a" * 64
SCRATCH = f"/run/gcs/c/{POD}"
COUNT = 127


def say(name, /, **values):
    print(json.dumps({"step": name} | values), flush=True)


def ask_host(word):
    with open("/dev/ttyS0", "rb", buffering=0) as console:
        print(f"HOST {word}", flush=True)
        console.readline()


def cid(number):
    return f"{number:064x}"


def root(number):
    return f"/run/gcs/c/{cid(number)}/rootfs"


def layer(number):
    return f"/run/mounts/scsi/m{number}"


def attempt(work):
    """The result, or the error's class and message."""
    try:
        return {"ok": work()}
    except (ApiError, OSError) as error:
        number = getattr(error, "number", None) or getattr(error, "errno", None)
        return {"error": type(error).__name__, "errno": number, "message": str(error)}


async def attempt_async(awaitable):
    try:
        await awaitable
        return {"ok": None}
    except ApiError as error:
        return {"error": type(error).__name__, "message": error.message}


def read(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


async def mount(storage, lun, number):
    found = await storage.read_claim(ScsiAddress(0, lun))
    await storage.mount_layer(found, layer(number))
    return found.claim


async def layers(storage):
    start = time.monotonic()
    claim = await mount(storage, 1, 1)
    say("layer", root=claim.root_hash, blocks=claim.data_blocks, seconds=time.monotonic() - start)
    say("layer.file", content=read(layer(1) + "/hello"))
    name = storage._ledger.layer(layer(1)).device
    say("layer.table", table=[t.describe() for t in DeviceMapper().table(name)])
    say("layer.twice", **await attempt_async(mount(storage, 1, 9)))
    say("layer.target", **await attempt_async(mount(storage, 2, 1)))
    say("layer.write", **attempt(lambda: open(layer(1) + "/new", "w")))
    node = DeviceMapper().node(name)
    say("layer.raw_write", **attempt(lambda: write_raw(node)))
    for lun, what in ((3, "data"), (4, "superblock"), (5, "size"), (6, "tree")):
        say(f"bad.{what}", **await attempt_async(mount(storage, lun, lun)))
    # A host that showed another superblock while the claim was read: the cut disk with the root that is allowed.
    found = await storage.read_claim(ScsiAddress(0, 1))
    disk = find_disk(ScsiAddress(0, 8), start + 60)
    short = Claim(found.root_hash, found.claim.data_blocks - 8)
    lie = LayerClaim(ScsiAddress(0, 8), disk, short)
    say("bad.cut", **await attempt_async(storage.mount_layer(lie, layer(8))))
    say("bad.cut.claim", **await attempt_async(mount(storage, 8, 8)))
    say("bad.data.read", **attempt(lambda: read(layer(3) + "/big")))
    say("bad.data.other", **attempt(lambda: read(layer(3) + "/hello")))
    say("corrupt", targets=storage.corrupt_layers())
    await storage.unmount_layer(layer(3))
    soon = time.monotonic() + 0.5
    say("missing", **attempt(lambda: str(find_disk(ScsiAddress(0, 200), soon))))


async def hot_plug(storage):
    """A disk that appears while it is waited for, vanishes in use, and comes back with other content."""
    waiting = asyncio.create_task(mount(storage, 250, 250))
    await asyncio.sleep(0.5)
    ask_host("plug")
    start = time.monotonic()
    claim = await waiting
    say("plug", root=claim.root_hash, seconds=time.monotonic() - start)
    say("plug.read", content=read(layer(250) + "/who"))
    ask_host("unplug")
    await asyncio.sleep(1)
    drop_caches()
    say("unplug.read", **attempt(lambda: len(read(layer(250) + "/big"))))
    ask_host("swap")
    await asyncio.sleep(2)
    say("swap.read", **attempt(lambda: len(read(layer(250) + "/big"))))
    say("swap.unmount", **await attempt_async(storage.unmount_layer(layer(250))))
    claim = await mount(storage, 250, 250)
    say("swap.claim", root=claim.root_hash)
    await storage.unmount_layer(layer(250))


def write_raw(node):
    fd = os.open(node, os.O_WRONLY)
    try:
        os.write(fd, bytes(4096))
        os.fsync(fd)
    finally:
        os.close(fd)


async def scratch(storage):
    start = time.monotonic()
    await storage.mount_scratch(ScsiAddress(0, 0), SCRATCH, POD)
    book = storage._ledger.scratch(SCRATCH)
    say("scratch", seconds=time.monotonic() - start)
    mapper = DeviceMapper()
    for name in (book.integrity, book.crypt):
        say(f"scratch.table.{name[:5]}", table=[t.describe() for t in mapper.table(name)])
    say("scratch.keys", keys=read("/proc/keys"))
    stat = os.statvfs(SCRATCH)
    say("scratch.space", total=stat.f_blocks * stat.f_frsize, free=stat.f_bfree * stat.f_frsize)
    os.makedirs(f"{SCRATCH}/sandboxMounts/many")
    piece = os.urandom(1 << 20)
    start = time.monotonic()
    with open(f"{SCRATCH}/sandboxMounts/data", "wb") as file:
        file.writelines(piece for _ in range(40))
    for number in range(300):
        with open(f"{SCRATCH}/sandboxMounts/many/{number}", "w") as file:
            file.write("canary-in-clear-text" * 10)
    drop_caches()
    say("scratch.wrote", seconds=time.monotonic() - start)
    with open(f"{SCRATCH}/sandboxMounts/data", "rb") as file:
        say("scratch.same", same=all(file.read(1 << 20) == piece for _ in range(40)))
    say(
        "scratch.many",
        same=all(
            read(f"{SCRATCH}/sandboxMounts/many/{n}") == "canary-in-clear-text" * 10
            for n in range(300)
        ),
    )
    say(
        "scratch.second",
        **await attempt_async(
            storage.mount_scratch(ScsiAddress(0, 7), f"/run/gcs/c/{'b' * 64}", "b" * 64)
        ),
    )


async def overlays(storage):
    await mount(storage, 2, 2)
    path = f"{SCRATCH}/scratch/{cid(1)}"
    await storage.mount_overlay(cid(1), [layer(2), layer(1)], root(1), path)
    say(
        "overlay",
        hello=read(root(1) + "/hello"),
        who=read(root(1) + "/who"),
        gone=os.path.exists(root(1) + "/gone"),
    )
    with open(root(1) + "/hello", "w") as file:
        file.write("changed")
    say("overlay.write", hello=read(root(1) + "/hello"), below=read(layer(1) + "/hello"))
    say("overlay.layer_in_use", **await attempt_async(storage.unmount_layer(layer(1))))
    say("overlay.scratch_in_use", **await attempt_async(storage.unmount_scratch(SCRATCH)))
    say("overlay.encrypted", value=storage.is_encrypted(path))
    # a layer twice in one image, and the same layer on two disks
    await mount(storage, 7, 7)
    twice = [layer(1), layer(2), layer(7), layer(1)]
    say(
        "twice",
        **await attempt_async(
            storage.mount_overlay(cid(2), twice, root(2), f"{SCRATCH}/scratch/{cid(2)}")
        ),
    )
    say("twice.hello", hello=read(root(2) + "/hello"), who=read(root(2) + "/who"))
    say("readonly", **await attempt_async(storage.mount_overlay(cid(3), [layer(1)], root(3), None)))
    say("readonly.hello", hello=read(root(3) + "/hello"))
    say("readonly.write", **attempt(lambda: open(root(3) + "/x", "w")))
    say(
        "options",
        mounts=[line for line in read("/proc/self/mountinfo").splitlines() if " overlay " in line][
            :1
        ],
    )
    for number in (1, 2, 3):
        await storage.unmount_overlay(root(number))
    say("overlay.gone", left=os.listdir("/run/gcs/c"))


async def many(storage):
    start = time.monotonic()
    first = 10
    claims = []
    for lun in range(first, first + COUNT):
        claims.append(await storage.read_claim(ScsiAddress(0, lun)))
    say("many.claims", seconds=time.monotonic() - start)
    start = time.monotonic()
    for lun, claim in enumerate(claims, first):
        await storage.mount_layer(claim, layer(lun))
    say("many.layers", seconds=time.monotonic() - start)
    paths = [layer(n) for n in reversed(range(first, first + COUNT))]
    start = time.monotonic()
    path = f"{SCRATCH}/scratch/{cid(5)}"
    await storage.mount_overlay(cid(5), paths, root(5), path)
    top = read(root(5) + "/top")
    count = sum(os.path.exists(f"{root(5)}/only-{n}") for n in range(COUNT))
    say("many", seconds=time.monotonic() - start, top=top, files=count)
    await storage.unmount_overlay(root(5))
    for lun in range(first, first + COUNT):
        await storage.unmount_layer(layer(lun))


def cgroups():
    """The kernel's own answers to what the unit tests play with files."""
    if not os.path.ismount("/sys/fs/cgroup"):
        mount_fs("cgroup2", "/sys/fs/cgroup", "cgroup2")
    top = Cgroup("/sys/fs/cgroup")
    top.enable()
    group = top.child("pod")
    group.create()
    group.enable()
    child = group.child("c1")
    child.create()
    child.apply(Limits(memory_max=64 << 20, pids_max=10, cpu_weight=50, cpu_quota=50_000))
    pid = os.posix_spawn(
        "/usr/bin/python3.13", ["python3", "-ISc", "import time; time.sleep(600)"], {}
    )
    child.add(pid)
    say("cgroup.processes", same=group.processes() == (pid,))
    child.freeze()
    say("cgroup.frozen", events=read(child.path + "/cgroup.events"))
    child.thaw()
    stats = child.stats()
    say(
        "cgroup.stats",
        memory=stats.memory_current,
        limit=stats.memory_max,
        pids=stats.pids_current,
        cpu=stats.cpu["usage_usec"],
        events=dict(stats.memory_events),
    )
    group.kill()
    group.wait_empty(10)
    os.waitpid(pid, 0)
    group.remove()
    say("cgroup.gone", there=os.path.exists(group.path))


async def network(storage):
    """The pod's interface is a real virtio device here."""
    load_groups(["net"])
    cgroups()
    pod = Network()
    await pod.setup(
        POD,
        "web-0",
        [InterfaceRequest("52:54:00:12:34:56", "eth0", 1400, ("10.0.2.15/24", "fec0::15/64"))],
        [RouteRequest("0.0.0.0/0", "10.0.2.2"), RouteRequest("::/0", "fec0::2")],
        [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("kernel.shmmni", "17"),
            ("fs.mqueue.msg_max", "11"),
        ],
    )

    def look():
        return {
            "host": socket.gethostname(),
            "links": sorted(link.name for link in links()),
            "routes": read("/proc/thread-self/net/route").splitlines(),
            "shmmni": read("/proc/sys/kernel/shmmni"),
            "msg_max": read("/proc/sys/fs/mqueue/msg_max"),
        }

    def links():
        with Route() as route:
            return route.links()

    say("net", inside=pod.namespaces.run(look), outside=look())


async def tampering(storage):
    say("tamper.before", **attempt(lambda: len(read(f"{SCRATCH}/sandboxMounts/data"))))
    drop_caches()
    ask_host("flip-scratch")
    say("tamper.scratch", **attempt(lambda: len(read(f"{SCRATCH}/sandboxMounts/data"))))
    say("tamper.layer.before", **attempt(lambda: len(read(layer(2) + "/big"))))
    drop_caches()
    with opened(DeviceMapper().node(storage._ledger.layer(layer(2)).device)) as fd:
        drop_cache(fd)
    ask_host("flip-layer")
    say("tamper.layer", **attempt(lambda: len(read(layer(2) + "/big"))))
    say("tamper.corrupt", targets=storage.corrupt_layers())


async def teardown(storage):
    for number in (1, 2, 7, 6):
        if layer(number) in storage.snapshot().devices:
            await storage.unmount_layer(layer(number))
    say("scratch.unmount", **await attempt_async(storage.unmount_scratch(SCRATCH)))
    left = [n for n in os.listdir("/sys/block") if n.startswith("dm-") and "parma" not in n]
    names = [read(f"/sys/block/{n}/dm/name").strip() for n in left]
    say("left", devices=names, snapshot=repr(storage.snapshot()))
    start = time.monotonic()
    await storage.mount_scratch(ScsiAddress(0, 0), SCRATCH, POD)
    say("scratch.again", files=sorted(os.listdir(SCRATCH)), seconds=time.monotonic() - start)
    await storage.unmount_scratch(SCRATCH)


async def scenario():
    storage = Storage()
    for part in (layers, hot_plug, scratch, overlays, many, network, tampering, teardown):
        await part(storage)


def early_mounts():
    """What the image's init would have done."""
    for fstype, place in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
    ):
        os.makedirs(place, exist_ok=True)
        if not os.path.ismount(place):
            mount_fs(fstype, place, fstype)
    console = os.open("/dev/console", os.O_RDWR)
    for fd in range(3):
        os.dup2(console, fd)


def main():
    early_mounts()
    start = time.monotonic()
    for line in read("/modules/list").splitlines():
        load(line.split(maxsplit=1)[1])
    load_groups(["storage"])
    make_control_node()
    say("modules", seconds=time.monotonic() - start)
    say("clock", rtc=read_rtc(), system=time.time(), moved=check_clock())
    os.makedirs("/run/gcs/c", exist_ok=True)
    try:
        asyncio.run(scenario())
    except (Exception, KernelError):
        say("failed", trace=traceback.format_exc())
    say("end")
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("o")
    time.sleep(60)


main()
