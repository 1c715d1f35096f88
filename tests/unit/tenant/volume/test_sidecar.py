"""The encrypted volume sidecar without its kernel: settings, keys, superblocks, mount tables."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
from errno import EINVAL, EIO, EPERM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block.integrity import Layout
from parma_api.ids import RootHash
from parma_api.status import (
    ApiError,
    DataLossError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
)
from parma_tenant.sidecar.volume import nbd_wire
from parma_tenant.sidecar.volume.config import (
    VARIABLE,
    Settings,
    SettingsError,
    Volume,
    read_settings,
)
from parma_tenant.sidecar.volume.main import obtain_key
from parma_tenant.sidecar.volume.nbd import _Link
from parma_tenant.sidecar.volume.opening import check_superblock, is_shared
from parma_tenant.volume.key import Kind, VolumeKey, VolumeKeyError
from parma_tenant.volume.release import key_to_jwk

KEY = VolumeKey(Kind.READ_ONLY, 300, RootHash("ab" * 32), bytes(range(1, 33)))
ROW = {"url": "http://host/blob", "kid": "model", "mount_point": "/volumes/model"}
BODY: dict[str, Any] = {"volumes": [ROW], "maa_endpoint": "a.example", "akv_endpoint": "b.example"}


def encoded(document: object) -> dict[str, str]:
    return {VARIABLE: base64.b64encode(json.dumps(document).encode()).decode()}


def with_row(**changes: object) -> dict[str, Any]:
    row = {name: value for name, value in (ROW | changes).items() if value is not None}
    return BODY | {"volumes": [row]}


def test_settings() -> None:
    volume = Volume("http://host/blob", None, "model", "/volumes/model", read_write=False)
    assert read_settings(encoded(BODY)) == Settings((volume,), "a.example", "b.example")
    more = with_row(url=None, path="/blob", read_write=True) | {"skr_port": 8081, "patience": 5}
    more["trusted_roots"] = "PEM"
    volume = Volume(None, "/blob", "model", "/volumes/model", read_write=True)
    assert read_settings(encoded(more)) == Settings(
        (volume,), "a.example", "b.example", 8081, 5, "PEM"
    )


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ([], "an object"),
        ({}, "1 to 16"),
        (BODY | {"volumes": []}, "1 to 16"),
        (BODY | {"volumes": [ROW] * 17}, "1 to 16"),
        (BODY | {"volumes": [ROW, ROW]}, "one mount_point"),
        (BODY | {"raw_key": "00"}, "no members but"),
        (BODY | {"akv_endpoint": 7}, "akv_endpoint"),
        (BODY | {"skr_port": 70000}, "skr_port"),
        (BODY | {"patience": True}, "patience"),
        (with_row(key="00"), "no members but"),
        (with_row(path="/x"), "exactly one"),
        (with_row(url=None), "exactly one"),
        (with_row(url=None, path="x"), "not absolute"),
        (with_row(mount_point="volumes/model"), "mount_point"),
        (with_row(mount_point="/volumes/../etc"), "mount_point"),
        (with_row(mount_point="/"), "mount_point"),
        (with_row(read_write="yes"), "read_write"),
        (with_row(kid=""), "kid"),
    ],
)
def test_settings_that_cannot_be_meant(document: object, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        read_settings(encoded(document))


@pytest.mark.parametrize("text", ["", "?", "AAAA", base64.b64encode(b'{"a":1,"a":2}').decode()])
def test_no_settings(text: str) -> None:
    with pytest.raises(SettingsError, match=VARIABLE):
        read_settings({VARIABLE: text})


class Skr:
    """Answers in turn; an error is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[object, ...]] = []

    def __call__(self, *asked: object, port: int) -> dict[str, Any]:
        self.asked.append((*asked, port))
        answer = self._answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        assert isinstance(answer, dict)
        return answer


def obtain(skr: Skr, **changes: object) -> VolumeKey:
    settings = read_settings(encoded(with_row(**changes) | {"patience": 3}))
    clock = itertools.count().__next__
    return obtain_key(settings, settings.volumes[0], skr, clock, pause=0)


def test_a_key_is_asked_for_until_the_services_are_there() -> None:
    skr = Skr(UnavailableError("away"), UnavailableError("busy"), key_to_jwk(KEY))
    assert obtain(skr) == KEY
    assert skr.asked == [("a.example", "b.example", "model", 8080)] * 3


def test_patience_ends() -> None:
    with pytest.raises(UnavailableError):
        obtain(Skr(*[UnavailableError("away")] * 9))


def test_no_key_for_this_group() -> None:
    skr = Skr(PermissionDeniedError("403"))
    with pytest.raises(PermissionDeniedError):
        obtain(skr)
    assert len(skr.asked) == 1, "a refusal is final"


def test_the_key_of_something_else() -> None:
    with pytest.raises(VolumeKeyError):
        obtain(Skr({"kty": "oct", "k": "AAAA"}))


def test_the_settings_say_which_kind_it_is() -> None:
    with pytest.raises(DataLossError, match="key of a read-only volume"):
        obtain(Skr(key_to_jwk(KEY)), read_write=True)
    other = VolumeKey(Kind.READ_WRITE, 4096, None, KEY.secret)
    with pytest.raises(DataLossError, match="key of a read-write volume"):
        obtain(Skr(key_to_jwk(other)))
    assert obtain(Skr(key_to_jwk(other)), read_write=True) == other


LAYOUT = Layout(40960)


def test_superblocks_that_are_opened() -> None:
    check_superblock(bytes(4096), LAYOUT)
    check_superblock(LAYOUT.superblock(), LAYOUT)


@given(st.integers(0, 4095), st.integers(1, 255))
def test_any_other_superblock_is_refused(at: int, change: int) -> None:
    block = bytearray(LAYOUT.superblock())
    block[at] ^= change
    with pytest.raises(DataLossError, match="integrity superblock"):
        check_superblock(bytes(block), LAYOUT)
    block = bytearray(4096)
    block[at] ^= change
    with pytest.raises(DataLossError):
        check_superblock(bytes(block), LAYOUT)


MOUNTS = """\
21 1 0:20 / / rw,relatime - overlay overlay rw
22 21 0:21 / /volumes rw shared:7 master:3 - ext4 /dev/x rw
23 21 0:22 / /volumes-of-others rw - ext4 /dev/y rw
24 22 0:23 / /volumes/private rw - tmpfs tmpfs rw
25 21 0:24 / /received rw master:3 - ext4 /dev/x rw
"""


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/volumes", True),
        ("/volumes/a/b", True),
        ("/volumes-of-others", False),
        ("/volumes/private", False),
        ("/received", False),
        ("/etc", False),
    ],
)
def test_where_others_see_a_mount(path: str, shared: bool) -> None:
    assert is_shared(MOUNTS, path) is shared


def request(kind: int, length: int = 4096, magic: int = 0x25609513) -> bytes:
    head = magic.to_bytes(4, "big") + bytes(2) + kind.to_bytes(2, "big")
    return head + (7).to_bytes(8, "big") + (8192).to_bytes(8, "big") + length.to_bytes(4, "big")


def test_requests_of_the_kernel() -> None:
    for kind, command in enumerate(nbd_wire.Command):
        assert nbd_wire.parse(request(kind)) == nbd_wire.Request(command, 7, 8192, 4096)
    assert nbd_wire.parse(request(4)).command is None, "discards were not offered"
    assert nbd_wire.reply(7, 5).hex() == "67446698" + "00000005" + "0000000000000007"


class Memory:
    """A blob in memory; `failure` is raised instead."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.data = bytearray(16384)
        self.failure = failure
        self.flushed = 0

    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        if self.failure:
            raise self.failure
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        if self.failure:
            raise self.failure
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        """Nothing."""


def exchange(blob: Memory, sent: bytes, *, writable: bool = True) -> bytes:
    """What a connection answers until the kernel goes."""
    kernel, ours = socket.socketpair()
    with kernel:
        link = _Link(ours, blob, 16384, writable=writable)
        thread = threading.Thread(target=link.serve)
        thread.start()
        kernel.sendall(sent)
        kernel.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: kernel.recv(65536), b""))
        thread.join(10)
    return answer


def test_a_connection_of_the_block_device() -> None:
    blob = Memory()
    write = request(1, 4) + b"data"
    answer = exchange(blob, write + request(3, 0) + request(0, 4) + request(2, 0))
    assert answer == nbd_wire.reply(7) * 3 + b"data"
    assert blob.flushed == 1
    assert blob.data[8192:8196] == b"data"


@pytest.mark.parametrize(
    ("sent", "writable", "number"),
    [
        (request(1, 4) + b"data", False, EPERM),
        (request(4), True, EPERM),
        (request(0, 8193), True, EINVAL),
        (request(1, 8193) + bytes(8193), True, EINVAL),
    ],
)
def test_what_a_connection_refuses(sent: bytes, writable: bool, number: int) -> None:
    blob = Memory()
    after = request(0, 4)
    answer = exchange(blob, sent + after, writable=writable)
    assert answer == nbd_wire.reply(7, number) + nbd_wire.reply(7) + bytes(4)
    assert not any(blob.data)


@pytest.mark.parametrize(
    "failure", [UnavailableError("away"), OSError(5, "x"), ValueError("odd"), KeyError("odder")]
)
@pytest.mark.parametrize("sent", [request(0, 4), request(1, 4) + b"data"])
def test_whatever_a_store_does_is_an_io_error(failure: Exception, sent: bytes) -> None:
    answer = exchange(Memory(failure), sent * 2)
    assert answer == nbd_wire.reply(7, EIO) * 2


def test_half_a_write_is_none() -> None:
    blob = Memory()
    assert exchange(blob, request(1, 4) + b"da") == b""
    assert not any(blob.data)


@pytest.mark.parametrize("data", [request(0, magic=1), request(0, length=(32 << 20) + 1)])
def test_what_the_kernel_does_not_ask(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        nbd_wire.parse(data)
