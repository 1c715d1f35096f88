"""Images of our own making under the names that critest asks for, as one OCI archive that the registry serves.

What each must offer is read from the suite (cri-tools, pkg/validate) and its Dockerfiles (images/). One is missing:
`test-image-digest@sha256:...` is named by the digest of the original's bytes, which nobody can make anew.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from parma_shim.demo import debian, images
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

from . import programs

E2E = "registry.k8s.io/e2e-test-images"
STAGING = "gcr.io/k8s-staging-cri-tools"
PAUSE = "registry.k8s.io/pause:3.9"
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = "root:x:0:\nbin:x:2:\nwww-data:x:33:\nnobody:x:65534:\n"
_DEFAULT_USER = "default-user:x:1000:1000::/home/default-user:/bin/sh\n"
_DEFAULT_GROUP = "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
_NGINX_CONF = """\
daemon off;
user www-data;
worker_processes 1;
error_log /dev/stderr info;
pid /var/run/nginx.pid;
events { worker_connections 64; }
http {
    access_log /dev/stdout;
    server { listen PORT; location / { root /srv; index index.html; } }
}
"""
_TAGGED = {
    "test-image-latest": ("latest",),
    "test-image-tag": ("test", "all"),
    "test-image-tags": ("1", "2", "3"),
    "test-image-1": ("latest",),
    "test-image-2": ("latest",),
    "test-image-3": ("latest",),
}
_USERS = {
    "test-image-user-uid": "1002",
    "test-image-user-username": "www-data",
    "test-image-user-uid-group": "1003:1004",
    "test-image-user-username-group": "www-data:1004",
}


def ensure(cache: Path) -> Path:
    """The archive, made when it is missing or what it is made from has changed. Raises BuildError, InternalError."""
    busybox, nnp = programs.busybox(cache), programs.no_new_privs(cache)
    key = hashlib.sha256()
    for path in (busybox, nnp, Path(__file__), Path(debian.__file__)):
        key.update(path.read_bytes())
    archive = cache / "critest" / f"images-{key.hexdigest()[:16]}.tar"
    if not archive.exists():
        with debian.unpacked(("nginx-light",), images.SUITE) as folder:
            write_archive(tuple(_all(busybox, nnp, Path(folder) / "root")), archive)
    return archive


def _all(busybox: Path, nnp: Path, root: Path) -> Iterator[Image]:
    base = _with_applets(layer_tar(_base(busybox)), _applets(busybox))
    shell = ImageConfig(cmd=("sh",))
    yield Image(PAUSE, (base,), ImageConfig(_PAUSE_COMMAND))
    yield Image(f"{E2E}/busybox:1.29-2", (base,), shell)
    yield Image(f"{E2E}/httpd:2.4.39-4", (base, layer_tar(_httpd())), _HTTPD)
    yield Image(
        f"{E2E}/nonewprivs:1.3",
        (base, layer_tar([Entry("nnp", 0o4755, nnp.read_bytes())])),
        ImageConfig(("/nnp",)),
    )
    libraries = layer_tar(debian.library_entries(root, ["usr/sbin/nginx"]))
    for name, port in (
        (f"{E2E}/nginx:1.14-2", 80),
        (f"{STAGING}/hostnet-nginx-amd64:latest", 12003),
    ):
        yield Image(name, (base, libraries, layer_tar(_nginx(root, port))), _NGINX)
    for name, tags in _TAGGED.items():
        own = layer_tar([Entry(name, 0o644, b"")])
        for tag in tags:
            yield Image(f"{STAGING}/{name}:{tag}", (base, own), shell)
    for name, user in _USERS.items():
        yield Image(f"{STAGING}/{name}:latest", (base,), ImageConfig(cmd=("sh",), user=user))
    grouped = layer_tar(_accounts(_PASSWD + _DEFAULT_USER, _GROUP + _DEFAULT_GROUP))
    yield Image(
        f"{STAGING}/test-image-predefined-group:latest",
        (base, grouped),
        ImageConfig(cmd=("sh",), user="1000"),
    )


# Not `sleep`: a spec looks for leftovers of that name, and the pod's containers share one pid namespace.
_PAUSE_COMMAND = ("/bin/tail", "-f", "/dev/null")
_HTTPD = ImageConfig(cmd=("sh", "-c", "echo httpd: ready; exec httpd -f -p 80 -h /srv"))
_NGINX = ImageConfig(cmd=("/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"))


def _base(busybox: Path) -> Iterator[Entry]:
    for folder in "bin dev etc home proc root run srv sys usr usr/bin usr/sbin var var/log".split():
        yield Entry(f"{folder}/")
    yield Entry("tmp/", 0o1777)
    yield Entry("var/run", link="/run")
    yield Entry("bin/busybox", 0o755, busybox.read_bytes())
    yield from _accounts(_PASSWD, _GROUP)


def _with_applets(layer: bytes, applets: Iterable[str]) -> bytes:
    """Hard links, as in the original: a mask on /bin/ls hides no other program."""
    stream = io.BytesIO(layer)
    with tarfile.open(fileobj=stream, mode="a", format=tarfile.GNU_FORMAT) as tar:
        for name in applets:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(info)
    return stream.getvalue()


def _applets(busybox: Path) -> list[str]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return sorted(set(done.stdout.split()) - {"busybox"})


def _accounts(passwd: str, group: str) -> Iterator[Entry]:
    yield Entry("etc/passwd", 0o644, passwd.encode())
    yield Entry("etc/group", 0o644, group.encode())


def _httpd() -> Iterator[Entry]:
    yield Entry("srv/index.html", 0o644, b"<h1>It works</h1>\n")


def _nginx(root: Path, port: int) -> Iterator[Entry]:
    yield Entry("etc/nginx/")
    yield Entry("etc/nginx/nginx.conf", 0o644, _NGINX_CONF.replace("PORT", str(port)).encode())
    yield Entry("srv/index.html", 0o644, b"<h1>nginx</h1>\n")
    yield Entry("usr/sbin/nginx", 0o755, (root / "usr/sbin/nginx").read_bytes())
    yield Entry("var/lib/")
    yield Entry("var/lib/nginx/")
    yield Entry("var/log/nginx/")
