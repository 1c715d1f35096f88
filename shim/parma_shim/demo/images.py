"""The demo images, from Debian packages into one OCI archive: busybox, nginx, redis, and pause for runc's sake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from parma_shim.demo.debian import library_entries, unpacked
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

SUITE = "bookworm"
PREFIX = "parma.example"
BUSYBOX = f"{PREFIX}/busybox:1"
NGINX = f"{PREFIX}/nginx:1"
REDIS = f"{PREFIX}/redis:1"
FOREIGN = f"{PREFIX}/foreign:1"
SWAPPED = f"{PREFIX}/swapped:1"
PAUSE = f"{PREFIX}/pause:1"

_PACKAGES = ("busybox-static", "nginx-light", "redis-server")
_APPLETS = (
    "sh ash cat echo ls ps sleep id env true false date mkdir rm cp mv ln chmod chown grep head tail wc seq dd "
    "sha256sum hostname ip nc wget stat test touch uname kill mount umount df sync sed awk sort tr yes od cut "
    "find readlink printf expr tee timeout nslookup ping vi top free dmesg mknod tar"
).split()
_USERS = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\napp:x:1000:1000::/:/bin/sh\n"
_GROUP = "root:x:0:\nwww-data:x:33:\napp:x:1000:\nadm:x:50000:app\n"
_NGINX_CONF = b"""\
daemon off;
user www-data;
worker_processes 1;
error_log /dev/stderr info;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        location / { root /srv; index index.html; }
    }
}
"""


def build(archive: Path, say: Callable[[str], None]) -> None:
    """Writes the images to `archive`, an OCI layout in a tar. Raises InternalError."""
    say("unpacking Debian packages: " + ", ".join(_PACKAGES))
    folder = unpacked(_PACKAGES, SUITE)
    with folder as name:
        root = Path(name) / "root"
        say("writing layers")
        write_archive(all_images(root), archive)


def all_images(root: Path) -> Sequence[Image]:
    """The images, from packages unpacked at `root`."""
    base = layer_tar(_base(root))
    nginx = layer_tar(_nginx(root))
    nginx_libraries = layer_tar(library_entries(root, ["usr/sbin/nginx"]))
    redis_libraries = layer_tar(
        library_entries(root, ["usr/bin/redis-check-rdb", "usr/bin/redis-cli"])
    )
    foreign = layer_tar([Entry("foreign", 0o644, b"a layer that no policy names\n")])
    web = ImageConfig(("/usr/sbin/nginx",), ("-c", "/etc/nginx/nginx.conf"))
    return (
        Image(PAUSE, (base,), ImageConfig(("/bin/sleep", "2147483647"))),
        Image(BUSYBOX, (base,), ImageConfig(cmd=("/bin/sh",))),
        Image(
            NGINX,
            (base, nginx_libraries, nginx),
            web,
        ),
        Image(SWAPPED, (nginx_libraries, base, nginx), web),
        Image(
            REDIS,
            (base, redis_libraries, layer_tar(_redis(root))),
            ImageConfig(("/usr/bin/redis-server",), ("--save", "", "--appendonly", "no")),
        ),
        Image(FOREIGN, (base, foreign), ImageConfig(cmd=("/bin/sh",))),
    )


def _base(root: Path) -> list[Entry]:
    folders = (
        "bin dev etc proc root run srv sys usr usr/bin usr/sbin var var/log var/tmp var/www".split()
    )
    entries = [Entry(f"{folder}/") for folder in folders]
    entries.append(Entry("tmp/", 0o1777))
    busybox = next(
        path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists()
    )
    entries.append(Entry("bin/busybox", 0o755, busybox.read_bytes()))
    entries += [Entry(f"bin/{name}", 0o777, link="busybox") for name in _APPLETS]
    entries.append(Entry("etc/passwd", 0o644, _USERS.encode()))
    entries.append(Entry("etc/group", 0o644, _GROUP.encode()))
    return entries


def _nginx(root: Path) -> list[Entry]:
    page = b"<h1>Served from inside a measured utility VM</h1>\n"
    return [
        Entry("etc/nginx/"),
        Entry("etc/nginx/nginx.conf", 0o644, _NGINX_CONF),
        Entry("srv/index.html", 0o644, page),
        Entry("usr/sbin/nginx", 0o755, (root / "usr/sbin/nginx").read_bytes()),
        Entry("var/lib/"),
        Entry("var/lib/nginx/"),
        Entry("var/log/nginx/"),
    ]


def _redis(root: Path) -> list[Entry]:
    program = (root / "usr/bin/redis-check-rdb").resolve()
    return [
        Entry("usr/bin/redis-server", 0o755, program.read_bytes()),
        Entry("usr/bin/redis-cli", 0o755, (root / "usr/bin/redis-cli").read_bytes()),
    ]


def ensure(cache: Path, say: Callable[[str], None]) -> Path:
    """The archive in `cache`, built when it is missing or this module has changed."""
    source = hashlib.sha256()
    for part in ("images.py", "debian.py", "ocilayout.py"):
        source.update(Path(__file__).with_name(part).read_bytes())
    archive = cache / f"images-{source.hexdigest()[:16]}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        build(archive, say)
    return archive
