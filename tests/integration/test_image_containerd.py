"""Layers of an image out of a real containerd: found, compared, read both ways, and refused."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parma_api.status import Code, RemoteError, UnavailableError
from parma_shim.image import blob
from parma_shim.image.client import ContainerdClient
from parma_shim.image.errors import BlobMissingError, ImageError
from parma_shim.image.resolve import resolve_image, resolve_layers
from tests.tools.oci_image import Image, digest, layer_tar

pytestmark = [pytest.mark.containerd, pytest.mark.root]
NAMESPACE = "parma-test"

Ctr = Callable[..., str]


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private containerd with nothing but its core."""
    folder = tmp_path_factory.mktemp("containerd")
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{folder}/c.sock"\n'
    )
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
    until = time.monotonic() + 60
    while subprocess.run(
        ["ctr", "-a", f"{folder}/c.sock", "version"], capture_output=True
    ).returncode:
        assert daemon.poll() is None
        assert time.monotonic() < until
    yield folder / "c.sock"
    daemon.terminate()
    daemon.wait(30)


@pytest.fixture
def ctr(socket: Path) -> Ctr:
    def run(*words: str) -> str:
        command = ["ctr", "-a", str(socket), "-n", NAMESPACE, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def layers() -> list[bytes]:
    return [layer_tar("base", b"base" * 1000), layer_tar("top", b"top" * 1000)]


async def test_base_first_and_the_blobs_read_the_same_both_ways(
    socket: Path, ctr: Ctr, layers: list[bytes], tmp_path: Path
) -> None:
    name = "docker.io/test/good:1"
    ctr("images", "import", str(Image(layers).write(tmp_path / "i.tar", name)))
    ctr("containers", "create", name, "good", "sh")
    async with ContainerdClient(socket, NAMESPACE) as client, client.leased("parma-good"):
        refs = await resolve_layers(client, "good")
        assert [ref.diff_id for ref in refs] == [digest(tar) for tar in layers]
        for ref, tar in zip(refs, layers, strict=True):
            assert ref._store is not None
            with await asyncio.to_thread(ref.open_blob) as stored:
                assert not isinstance(stored, blob.StreamedBlob)
                whole = stored.read()
            assert (len(whole), gzip.decompress(whole)) == (ref.size, tar)
            descriptor = blob.Descriptor(ref.media_type, ref.digest, ref.size)
            streamed = blob.StreamedBlob(client, descriptor, asyncio.get_running_loop())
            assert await asyncio.to_thread(streamed.readall) == whole
        assert "parma-good" in ctr("leases", "ls")
    assert "parma-good" not in ctr("leases", "ls")


async def test_a_moved_name_is_noticed(
    socket: Path, ctr: Ctr, layers: list[bytes], tmp_path: Path
) -> None:
    name = "docker.io/test/moved:1"
    ctr("images", "import", str(Image(layers).write(tmp_path / "i.tar", name)))
    ctr("containers", "create", name, "moved", "sh")
    ctr("images", "import", str(Image(layers[:1]).write(tmp_path / "j.tar", name)))
    async with ContainerdClient(socket, NAMESPACE) as client:
        with pytest.raises(ImageError, match="moved to another image"):
            await resolve_layers(client, "moved")


async def test_a_missing_blob(socket: Path, ctr: Ctr, layers: list[bytes], tmp_path: Path) -> None:
    name = "docker.io/test/gone:1"
    layers = [*layers, layer_tar("only here", b"x")]
    ctr("images", "import", str(Image(layers).write(tmp_path / "i.tar", name)))
    ctr("containers", "create", name, "gone", "sh")
    ctr("content", "rm", digest(gzip.compress(layers[-1], mtime=0)))
    async with ContainerdClient(socket, NAMESPACE) as client:
        lost = (await resolve_layers(client, "gone"))[-1]
        assert lost._store is not None
        stored = lost._store / "blobs" / lost.digest.replace(":", "/")
        async with asyncio.timeout(60):
            while stored.exists():  # noqa: ASYNC110 -- containerd's collector removes the file in its own time
                await asyncio.sleep(0.01)
        with pytest.raises(BlobMissingError, match="discard_unpacked_layers"):
            await asyncio.to_thread(lambda: lost.open_blob().read())


async def test_no_layers_at_all(socket: Path, ctr: Ctr, tmp_path: Path) -> None:
    name = "docker.io/test/empty:1"
    ctr("images", "import", "--no-unpack", str(Image([]).write(tmp_path / "i.tar", name)))
    async with ContainerdClient(socket, NAMESPACE) as client:
        with pytest.raises(ImageError, match="no layers"):
            await resolve_image(client, name)


async def test_another_platform(
    socket: Path, ctr: Ctr, layers: list[bytes], tmp_path: Path
) -> None:
    name = "docker.io/test/arm:1"
    archive = Image(layers, architecture="arm64").write(tmp_path / "i.tar", name)
    ctr("images", "import", "--no-unpack", "--all-platforms", str(archive))
    async with ContainerdClient(socket, NAMESPACE) as client:
        with pytest.raises(ImageError, match=r"linux/amd64"):
            await resolve_image(client, name)


async def test_a_root_without_an_image(socket: Path, ctr: Ctr, tmp_path: Path) -> None:
    ctr("containers", "create", "--rootfs", str(tmp_path), "bare", "sh")
    async with ContainerdClient(socket, NAMESPACE) as client:
        with pytest.raises(ImageError, match="--rootfs"):
            await resolve_layers(client, "bare")


async def test_nobody_there(socket: Path, tmp_path: Path) -> None:
    async with ContainerdClient(tmp_path / "no.sock", NAMESPACE) as client:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await resolve_layers(client, "x")
    async with ContainerdClient(socket, NAMESPACE) as client:
        with pytest.raises(RemoteError) as caught:
            await resolve_layers(client, "never-was")
        assert caught.value.code is Code.NOT_FOUND
        with pytest.raises(ImageError, match="pull it again"):
            await resolve_image(client, "docker.io/test/never:1")
