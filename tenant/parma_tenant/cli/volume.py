"""`parma volume`: encrypted volumes, made on the tenant's own machine."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from parma_api.status import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError

if TYPE_CHECKING:
    from parma_tenant.volume.key import VolumeKey

_FILE = click.Path(path_type=Path)
_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGT]?)(i?B)?", re.IGNORECASE)
_BLOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SHOW_EVERY: Final = 0.2


@click.group()
def volume() -> None:
    """Make encrypted volumes, which only the groups that a release policy names can open.

    Example: parma volume create model.blob --from model/ --key model.jwk
    """


@volume.command()
@click.argument("out", metavar="OUT", type=_FILE)
@click.option("--from", "folder", type=_FILE, help="The folder whose files shall be in the volume.")
@click.option(
    "--key", "key_file", type=_FILE, required=True, help="The file for the key (JWK): secret."
)
@click.option(
    "--read-write",
    is_flag=True,
    help="A volume that the group can write to; without it files cannot be changed, nor put back to older ones.",
)
@click.option("--size", metavar="SIZE", help="Of a read-write volume: 64M, 10G; from 16M.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def create(
    *,
    out: Path,
    folder: Path | None,
    key_file: Path,
    read_write: bool,
    size: str | None,
    as_json: bool,
) -> None:
    """Make the encrypted volume OUT and its key.

    OUT tells nothing without the key and can be stored anywhere. The key also holds all that a group needs to open it,
    so nothing is read from OUT that its owner could have changed: give it to a broker, and destroy the file. No
    device-mapper, no root and no VM is needed. While it works, the plaintext lies beside OUT in temporary files that
    nobody else can read.

    Example: parma volume create model.blob --from model/ --key model.jwk && parma broker key import model --jwk
    model.jwk --release-policy policy.json --broker https://broker.example:8443
    """
    from parma_tenant.volume.create import create_read_only, create_read_write

    _check(folder, size, read_write=read_write)
    _check_key_file(key_file, out)
    progress = _progress()
    if read_write:
        assert size is not None
        key = create_read_write(folder, parse_size(size), out, progress)
    else:
        assert folder is not None
        key = create_read_only(folder, out, progress)
    try:
        _write_key(key, key_file)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    _show(key, out, key_file, as_json=as_json)


@volume.command()
@click.argument("blobs", metavar="[NAME=]PATH...", nargs=-1, required=True)
@click.option(
    "--listen",
    default="127.0.0.1:8480",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen.",
)
@click.option("--writable", is_flag=True, help="Groups may write: for read-write volumes.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as JSON.")
def serve(*, blobs: tuple[str, ...], listen: str, writable: bool, as_json: bool) -> None:
    """Serve volumes from this host over HTTP: files, or block devices.

    Whoever stores a volume needs no trust, so there is nothing to log in to: what is served is ciphertext. Listen where
    the pods can reach it and others cannot. Runs until SIGTERM.

    Example: parma volume serve model.blob state=/dev/vg0/state --writable --listen 10.88.0.1:8480
    """
    from parma_tenant.cli.connect import host_and_port
    from parma_tenant.volume.serve import BlobServer, Store

    store = Store(_named(blobs), writable)
    store.check()
    with BlobServer(host_and_port(listen, "--listen"), store) as server:
        host = listen.rpartition(":")[0]
        urls = {name: f"http://{host}:{server.server_port}/{name}" for name in store.blobs}
        click.echo(json.dumps(urls) if as_json else "\n".join(urls.values()))
        signal.signal(signal.SIGTERM, _stop)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _named(blobs: tuple[str, ...]) -> dict[str, Path]:
    """Raises InvalidArgumentError: a name that is none, or stands for two."""
    found: dict[str, Path] = {}
    for text in blobs:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).name, text
        if not _BLOB_NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"{name[:80]!r}: a name has letters, digits, dots, dashes: give NAME=PATH"
            )
        if name in found:
            raise InvalidArgumentError(f"two blobs have the name {name}: give NAME=PATH")
        found[name] = Path(path)
    return found


def _check(folder: Path | None, size: str | None, *, read_write: bool) -> None:
    if read_write and size is None:
        raise InvalidArgumentError("a read-write volume needs a --size: 64M for instance")
    if not read_write and size is not None:
        raise InvalidArgumentError(
            "--size is for a volume with --read-write: others are as large as their files"
        )
    if not read_write and folder is None:
        raise InvalidArgumentError("a read-only volume needs files: name their folder by --from")


def _check_key_file(path: Path, out: Path) -> None:
    """Before the long work. Raises AlreadyExistsError, InvalidArgumentError."""
    if path.absolute() == out.absolute():
        raise InvalidArgumentError("the key and the volume are two files: name another --key")
    if os.path.lexists(path):
        raise AlreadyExistsError(f"{path} is there already: name another file for the key")


def parse_size(text: str) -> int:
    """Bytes of `64M`, `10GiB`, `67108864`. Raises InvalidArgumentError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgumentError(f"--size {text[:40]!r} is no size: 64M, 10G, or bytes")
    return int(found[1]) << _UNITS[found[2].upper()]


def _write_key(key: VolumeKey, path: Path) -> None:
    """Readable by its owner only. Raises AlreadyExistsError, FailedPreconditionError."""
    from parma_tenant.volume.release import key_to_jwk

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AlreadyExistsError(
            f"{path} is there already: name another file for the key"
        ) from None
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        json.dump(key_to_jwk(key), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _show(key: VolumeKey, out: Path, key_file: Path, *, as_json: bool) -> None:
    about: dict[str, Any] = {
        "kind": key.kind.label,
        "volume": str(out),
        "size": key.blob_size,
        "file_system_size": key.data_sectors * 512,
        "root_hash": key.root,
        "key": str(key_file),
    }
    if as_json:
        click.echo(json.dumps(about))
        return
    click.echo(f"{key.kind.label} volume of {key.blob_size} bytes: {out}")
    if key.root is not None:
        click.echo(f"root hash {key.root} (in the key)")
    click.echo(
        f"key: {key_file}: import it into the broker (`parma broker key import --jwk`), then destroy it"
    )


def _progress() -> Callable[[int, int], None]:
    """On a terminal one line, kept up to date."""
    shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if not sys.stderr.isatty():
            return
        if done == total:
            click.echo("\r\033[K", nl=False, err=True)
        elif time.monotonic() - shown > _SHOW_EVERY:
            shown = time.monotonic()
            click.echo(f"\rencrypted {done >> 20} of {total >> 20} MiB", nl=False, err=True)

    return show
