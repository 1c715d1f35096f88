"""An image that is deleted while its container runs: the guest reads on from layers that have no name any more."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd
from parma_shim.demo.group import Member
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

from .conftest import Pod, Store, policy_text

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
NAME = "parma.example/fleeting:1"
SLEEPER = Member("sleeper", NAME, ("/bin/sleep", "1000000"))


def test_38_an_image_is_deleted_while_its_container_runs(
    daemon: PrivateContainerd, start_pod: Callable[[bytes], Pod], store: Store, tmp_path: Path
) -> None:
    content = os.urandom(4 << 20)
    base = gzip.decompress(store.image(images.BUSYBOX)[1][0])
    layer = layer_tar([Entry("big", 0o644, content)])
    archive = tmp_path / "images.tar"
    write_archive([Image(NAME, (base, layer), ImageConfig(cmd=("/bin/sh",)))], archive)
    daemon.ctr("images", "import", str(archive))
    own = Store(archive)
    blob = hashlib.sha256(own.image(NAME)[1][1]).hexdigest()
    cached = daemon.folder / "lib/layers"
    before = set(cached.rglob("*"))

    pod = start_pod(
        policy_text(own.container("sleeper", NAME, SLEEPER.command, execs=[["/bin/sh"]]))
    )
    sleeper = pod.run(SLEEPER)
    daemon.crictl("rmi", NAME)
    daemon.ctr("images", "rm", "--sync", NAME)
    assert blob not in daemon.ctr("content", "ls", "-q")
    for path in set(cached.rglob("*")) - before:
        if path.is_file():
            path.unlink()

    # Nothing of it was read before: 4 MiB are beyond what the guest reads ahead.
    assert pod.sh(sleeper, "sha256sum /big").split()[0] == hashlib.sha256(content).hexdigest()
    pod.remove()
