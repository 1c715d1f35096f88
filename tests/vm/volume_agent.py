"""Runs in the guest in the agent's place: opens the disks as volumes with the sidecar's own code, one JSON line a step.

`KEYS`, hexadecimal by name, is put before this text. The guest writes to its raw disks where it plays the host.
"""

# ruff: noqa: E402, F821, PTH103, PTH123, PTH208

import sys

sys.dont_write_bytecode = True
sys.path[:0] = ["/usr/lib/parma", "/usr/lib/parma/site"]

import json
import mmap
import os
import threading
import time
import traceback
from hashlib import sha256
from types import SimpleNamespace

from parma_api.status import ApiError
from parma_guest.linux.blockdev import ScsiAddress, find_disk
from parma_guest.linux.devmapper import make_control_node
from parma_guest.linux.modules import load, load_groups
from parma_guest.linux.mount import mount as mount_fs
from parma_tenant.sidecar.volume.attach import attach
from parma_tenant.sidecar.volume.mapper import DeviceMapper
from parma_tenant.sidecar.volume.opening import mount_volume, open_volume, unmount_volume
from parma_tenant.volume.key import decode

BLOCK = 4096
PLACE = "/run/volume"


def say(name, /, **values):
    print(json.dumps({"step": name} | values), flush=True)


def attempt(work):
    """The result, or the error's class and message."""
    try:
        return {"ok": work()}
    except (ApiError, OSError) as error:
        number = getattr(error, "number", None) or getattr(error, "errno", None)
        return {"error": type(error).__name__, "errno": number, "message": str(error)}


def digests():
    found = {}
    for folder, _, files in os.walk(PLACE):
        for file in files:
            path = f"{folder}/{file}"

            def digest(path=path):
                with open(path, "rb") as stream:
                    return sha256(stream.read()).hexdigest()

            found[path.removeprefix(PLACE + "/")] = attempt(digest)
    return found


def disk(lun):
    return find_disk(ScsiAddress(0, lun), time.monotonic() + 10).node


def with_volume(key, path, work):
    """What `work(node)` gives of the mounted volume at `path`; everything is taken down again."""
    device = attach(SimpleNamespace(path=path, url=None), key)
    try:
        opened = open_volume(key, device.number, "volume-test")
        try:
            mount_volume(key, opened.node, PLACE)
            try:
                return work(opened.node)
            finally:
                unmount_volume(PLACE)
        finally:
            opened.close()
    finally:
        device.close()


def look(key, path):
    return attempt(lambda: with_volume(key, path, lambda _node: digests()))


def raw(path, offset, length=BLOCK):
    with mmap.mmap(-1, length) as page:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.preadv(fd, [page], offset)
        os.close(fd)
        return bytes(page)


def raw_write(path, offset, data):
    with mmap.mmap(-1, len(data)) as page:
        page[:] = data
        fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            assert os.pwrite(fd, page, offset) == len(data)
        finally:
            os.close(fd)


def read_only(keys):
    say("ro", **look(keys["ro"], disk(0)))
    with open("/run/blob", "wb") as out, open(disk(0), "rb") as source:
        out.write(source.read())
    say("ro.nbd", **look(keys["ro"], "/run/blob"))
    say("ro.flipped", **look(keys["ro"], disk(1)))
    say("ro.other_key", **look(keys["other"], disk(0)))
    say("ro.tree", **look(keys["ro"], disk(2)))
    say("ro.short", **look(keys["ro"], disk(3)))

    def modes(node):
        def writing():
            raw_write(node, 0, bytes(BLOCK))

        def making():
            open(f"{PLACE}/new", "w").close()

        (line,) = DeviceMapper().table("volume-test")
        return {"raw": attempt(writing), "file": attempt(making), "table": line.describe()}

    say("ro.modes", **with_volume(keys["ro"], disk(0), modes))


def write_some(_node):
    with open(f"{PLACE}/written", "wb") as out:
        out.write(b"canary-in-clear-text" * 50000)
        out.flush()
        os.fsync(out.fileno())
    return digests()


def whole(key):
    """Every block of the plaintext device can be read, used or not."""

    def work(node):
        count = 0
        with open(node, "rb", buffering=0) as stream:
            while piece := stream.read(1 << 20):
                count += len(piece)
        return count

    return work


def read_write(keys):
    key, path = keys["rw"], disk(4)
    say("rw.first", **attempt(lambda: with_volume(key, path, write_some)))
    say("rw.superblock", hex=raw(path, 0).hex())
    say("rw.again", **look(key, path))
    say("rw.whole", **attempt(lambda: with_volume(key, path, whole(key))))
    say("rw.size", wanted=key.data_sectors * 512)
    with open(path, "rb") as stream:
        say("rw.canary", found=b"canary-in-clear-text" in stream.read())

    def table(_node):
        names = ("volume-test", "volume-test-integrity")
        return [DeviceMapper().table(name)[0].describe() for name in names]

    say("rw.tables", **attempt(lambda: with_volume(key, path, table)))
    say("rw.nbd", **nbd_writes(key, path))
    superblock = raw(path, 0)
    raw_write(path, 0, superblock[:24] + b"\x0c" + superblock[25:])
    say("rw.superblock_changed", **look(key, path))
    raw_write(path, 0, bytes(BLOCK))
    say("rw.superblock_zeroed", **look(key, path))
    play_host(key, path)


def nbd_writes(key, path):
    """The same through the network block device: a copy in a file."""
    with open("/run/rwblob", "wb") as out, open(path, "rb") as source:
        out.write(source.read())
    first = attempt(lambda: with_volume(key, "/run/rwblob", write_some))
    return {"first": first, "again": look(key, "/run/rwblob")}


def play_host(key, path):
    """The blocks of the first file, as `debugfs` found them on the host: flipped, swapped, put back."""
    layout = key.layout
    a, b = BLOCKS
    data = {block: raw(path, layout.data_at(block)) for block in (a, b)}
    raw_write(path, layout.data_at(a), data[a][:100] + bytes([data[a][100] ^ 1]) + data[a][101:])
    say("rw.flipped", **look(key, path))
    raw_write(path, layout.data_at(a), data[a])
    say("rw.restored", **look(key, path))
    raw_write(path, layout.data_at(a), data[b])
    raw_write(path, layout.data_at(b), data[a])
    tags = {block: tag(path, layout, block) for block in (a, b)}
    put_tag(path, layout, a, tags[b])
    put_tag(path, layout, b, tags[a])
    say("rw.swapped", **look(key, path))


def tag(path, layout, block):
    at = layout.tag_at(block)
    page = at // BLOCK * BLOCK
    return raw(path, page)[at - page : at - page + 32]


def put_tag(path, layout, block, value):
    at = layout.tag_at(block)
    page = at // BLOCK * BLOCK
    old = raw(path, page)
    raw_write(path, page, old[: at - page] + value + old[at - page + 32 :])


def die_writing(key):
    """What was synced before stands in the log; then the machine ends in the middle of what was not."""

    def write(_node):
        with open(f"{PLACE}/synced", "wb") as out:
            out.write(b"synced" * 100000)
            out.flush()
            os.fsync(out.fileno())
        say("crash.synced", digest=sha256(b"synced" * 100000).hexdigest())
        for number in range(40):
            for name in ("a", "b"):
                with open(f"{PLACE}/{name}", "wb") as out:
                    out.write(os.urandom(1 << 20))
                    out.flush()
            if number % 4 == 3:
                threading.Thread(target=os.sync, daemon=True).start()
            if number == 30:
                sysrq("b")

    with_volume(key, disk(5), write)


def after_death(key):
    say("crash.blocks", **attempt(lambda: with_volume(key, disk(5), whole(key))))
    say("crash.files", **look(key, disk(5)))


def scenario():
    keys = {name: decode(bytes.fromhex(text)) for name, text in KEYS.items()}
    with open("/proc/cmdline") as line:
        words = line.read().split()
    if "story=crash" in words:
        return die_writing(keys["crash"])
    if "story=after" in words:
        return after_death(keys["crash"])
    read_only(keys)
    read_write(keys)
    return say(
        "left", devices=[name for name in os.listdir("/sys/block") if name.startswith("dm-")]
    )


def sysrq(letter):
    with open("/proc/sysrq-trigger", "w") as file:
        file.write(letter)
    time.sleep(60)


def main():
    for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("dev", "devtmpfs"), ("run", "tmpfs")):
        os.makedirs(f"/{name}", exist_ok=True)
        mount_fs(kind, f"/{name}", kind)
    with open("/modules/list") as lines:
        for line in lines.read().splitlines():
            load(line.split(maxsplit=1)[1])
    load_groups(("storage", "volume"))
    make_control_node()
    try:
        scenario()
    except BaseException:
        say("failed", trace=traceback.format_exc())
    say("end")
    sysrq("o")


main()
