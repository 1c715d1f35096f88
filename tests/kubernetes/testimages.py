"""Images that only these tests need, beside the demo's: one that says itself as whom it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

ACCOUNT = "parma.example/account:1"
_BUSYBOX = Path("/bin/busybox")
_APPLETS = "sh cat echo id sleep ls ps readlink touch stat test true".split()
_PASSWD = "root:x:0:0::/:/bin/sh\nkeeper:x:1500:2500::/:/bin/sh\n"
_GROUP = "root:x:0:\nkeeper:x:2500:\narchive:x:60000:keeper\n"


def _base() -> bytes:
    folders = [Entry(f"{name}/") for name in ("bin", "dev", "etc", "proc", "sys")]
    return layer_tar(
        [
            *folders,
            Entry("tmp/", 0o1777),
            Entry("bin/busybox", 0o755, _BUSYBOX.read_bytes()),
            *(Entry(f"bin/{name}", 0o777, link="busybox") for name in _APPLETS),
            Entry("etc/passwd", 0o644, _PASSWD.encode()),
            Entry("etc/group", 0o644, _GROUP.encode()),
        ]
    )


def ensure(cache: Path) -> Path:
    """The archive in `cache`, built when what goes in has changed."""
    key = hashlib.sha256(Path(__file__).read_bytes() + _BUSYBOX.read_bytes()).hexdigest()[:16]
    archive = cache / f"test-images-{key}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        account = ImageConfig(entrypoint=("/bin/sleep",), cmd=("100001",), user="keeper")
        write_archive([Image(ACCOUNT, (_base(),), account)], archive)
    return archive
