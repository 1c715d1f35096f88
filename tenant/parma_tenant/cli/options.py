"""Options that several commands share: where images are, and what else goes into a policy."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import click

from parma_tenant.generate.run import ProgressMaker, Wishes, read_file
from parma_tenant.image.hashing import Progress
from parma_tenant.image.image import Layer
from parma_tenant.image.registry import RegistrySource
from parma_tenant.image.sources import Places
from parma_tenant.source.errors import SourceError

_F = TypeVar("_F", bound=Callable[..., Any])
FILE: Final = click.Path(dir_okay=False, path_type=Path)
_ANY: Final = click.Path(path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_DEFAULT_CONTAINERD: Final = "/var/lib/containerd"
_SHA256: Final = re.compile("[0-9a-f]{64}")
_OPTIONS: Final = (
    click.option("--archive", "archives", type=_ANY, multiple=True, help="Images: a tar (docker save, OCI layout)."),
    click.option("--layout", "layouts", type=_FOLDER, multiple=True, help="Images: the folder of an OCI layout."),
    click.option(
        "--containerd", type=_FOLDER, is_flag=False, flag_value=_DEFAULT_CONTAINERD, default=None,
        help=f"Images: containerd's root folder [without a value: {_DEFAULT_CONTAINERD}].",
    ),
    click.option("--offline", is_flag=True, help="Ask no registry."),
    click.option("--insecure-registry", "insecure", multiple=True, metavar="HOST", help="A registry without TLS."),
    click.option("--with", "extra", type=FILE, multiple=True, help="Manifests that the first ones refer to."),
    click.option("--select", metavar="NAME", help="Of several workloads this one (`deployment/web`, or its name)."),
    click.option("--profile", "profiles", multiple=True, metavar="NAME[@VERSION]", help="A node profile more."),
    click.option("--seccomp", multiple=True, metavar="NAME=FILE|SHA256", help="A seccomp profile that manifests name."),
)  # fmt: skip


def image_options(command: _F) -> _F:
    """Adds the options; the command takes them as `**options` and gives them to the functions below."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def places_of(options: dict[str, Any]) -> Places:
    """Where images come from."""
    registry = None if options["offline"] else RegistrySource(frozenset(options["insecure"]))
    return Places(options["archives"], options["layouts"], options["containerd"], registry)


def wishes_of(
    options: dict[str, Any],
    execs: Sequence[str] = (),
    ports: Sequence[int] = (),
    flags: frozenset[str] = frozenset(),
) -> Wishes:
    """What goes into the policy. Raises SourceError."""
    return Wishes(
        options["select"],
        options["profiles"],
        dict(_seccomp(text) for text in options["seccomp"]),
        tuple(_exec(text) for text in execs),
        tuple(ports),
        flags,
    )


def extra_of(options: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The files of --with. Raises SourceError."""
    return [(path.name, read_file(path)) for path in options["extra"]]


def _exec(text: str) -> tuple[str | None, tuple[str, ...]]:
    head, equals, tail = text.partition("=")
    named = bool(equals) and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", head) is not None
    try:
        command = tuple(shlex.split(tail if named else text))
    except ValueError as error:
        raise SourceError(f"--allow-exec {text!r}: {error}") from error
    if not command:
        raise SourceError('--allow-exec needs a command: `sh`, or `CONTAINER=sh -c "..."`')
    return (head if named else None), command


def _seccomp(text: str) -> tuple[str, str]:
    import json

    from parma_api.policy.seccomp_digest import seccomp_digest

    name, equals, value = text.partition("=")
    if not equals:
        raise SourceError(f"--seccomp {text!r}: write NAME=FILE or NAME=SHA256")
    if _SHA256.fullmatch(value):
        return name, value
    try:
        return name, seccomp_digest(json.loads(read_file(Path(value))))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{value} is no seccomp profile: {error}") from error


@contextmanager
def progress_bar() -> Iterator[ProgressMaker]:
    """A bar on standard error while layers are hashed, if that is a terminal."""
    bars: list[Any] = []

    def make(layers: Sequence[Layer]) -> Progress:
        if not layers or not sys.stderr.isatty():
            return lambda _layer, _read: None
        bar = click.progressbar(
            length=sum(layer.size for layer in layers), label="hashing layers", file=sys.stderr
        )
        bars.append(bar.__enter__())
        return _reporter(bar)

    try:
        yield make
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)


def _reporter(bar: Any) -> Progress:
    lock = Lock()
    seen: dict[str, int] = {}

    def report(layer: Layer, read: int) -> None:
        with lock:
            bar.update(read - seen.get(layer.diff_id, 0))
            seen[layer.diff_id] = read

    return report
