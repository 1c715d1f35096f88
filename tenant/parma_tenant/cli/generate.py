"""`parma policy generate`."""

from __future__ import annotations

import difflib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from parma_api.status import ApiError
from parma_tenant.cli.options import (
    FILE,
    extra_of,
    image_options,
    places_of,
    progress_bar,
    wishes_of,
)
from parma_tenant.generate.annotate import Change, annotate, annotation_value, size_note
from parma_tenant.generate.run import Generated, generate, read_file, read_groups
from parma_tenant.image.hashing import HashCache, default_cache
from parma_tenant.source.errors import SourceError

_DROPPING = frozenset({"allow_environment_variable_dropping", "allow_capability_dropping"})


@click.command("generate")
@click.argument("sources", type=click.Path(path_type=Path), nargs=-1, required=True)
@image_options
@click.option(
    "--allow-exec",
    "execs",
    multiple=True,
    metavar="[CONTAINER=]COMMAND",
    help="Open exec, stdin and terminal.",
)
@click.option(
    "--allow-port-forward",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="Open a port.",
)
@click.option(
    "--allow-dropping",
    "dropping",
    is_flag=True,
    help="Drop variables and capabilities that fit no rule.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Where the policy goes [default: standard output].",
)
@click.option(
    "--annotate",
    "in_place",
    is_flag=True,
    help="Write policies, and digests for tags, into the manifest.",
)
@click.option("--annotate-to", type=FILE, help="The same into another file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def generate_command(
    sources: tuple[Path, ...],
    *,
    execs: tuple[str, ...],
    ports: tuple[int, ...],
    dropping: bool,
    output: Path | None,
    in_place: bool,
    annotate_to: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the policy of a container group: of Kubernetes manifests, or of a container-group file (YAML or JSON).

    HOST_DATA is printed on standard error. Nothing is written unless everything worked.

    Example: parma policy generate deployment.yaml --archive images.tar --output policy.rego
    """
    try:
        flags = _DROPPING if dropping else frozenset[str]()
        wishes = wishes_of(options, execs, ports, flags)
        files = [(path.name, read_file(path)) for path in sources]
        groups = read_groups(files, extra_of(options), wishes)
        with progress_bar() as progress:
            found = generate(
                groups, places_of(options), wishes, HashCache(default_cache()), progress
            )
        writes = list(_policies(found, output, several_allowed=in_place or bool(annotate_to)))
        if in_place or annotate_to is not None:
            writes.append(_annotated(sources, files[0][1], found, annotate_to))
        write_all(writes)
    except ApiError as error:
        click.echo(f"parma policy: {one_line(error.message)}", err=True)
        sys.exit(2)
    notes = _notes(found)
    if as_json:
        click.echo(
            json.dumps(
                [_described(one, output) for one in found]
                if len(found) > 1
                else _described(found[0], output)
            )
        )
    elif not writes:
        click.echo(found[0].text, nl=False)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for one in found:
        title = f" {one.title}" if len(found) > 1 else ""
        click.echo(f"HOST_DATA {one.host_data}{title}", err=True)


def one_line(message: str) -> str:
    """The first line of a message."""
    return message.splitlines()[0] if message else "failed"


def _notes(found: Sequence[Generated]) -> list[str]:
    notes = [note for one in found for note in one.notes]
    notes += [note for one in found if (note := size_note(one.text)) is not None]
    return list(dict.fromkeys(notes))


def _described(one: Generated, output: Path | None) -> dict[str, object]:
    described: dict[str, object] = {
        "host_data": one.host_data,
        "bytes": len(one.text),
        "workload": one.title or None,
        "images": {
            name: {"reference": image.reference, "digest": image.digest}
            for name, image in one.images.items()
        },
        "profiles": [profile.title for profile in one.profiles],
        "notes": list(one.notes),
    }
    if output is None:
        described["policy"] = one.text.decode()
    return described


def _policies(
    found: Sequence[Generated], output: Path | None, *, several_allowed: bool
) -> Iterator[tuple[Path, bytes]]:
    if output is not None and output.is_dir():
        for one in found:
            yield output / f"{one.title.replace('/', '-') or 'policy'}.rego", one.text
        return
    if len(found) > 1 and (output is not None or not several_allowed):
        titles = ", ".join(one.title for one in found)
        raise SourceError(
            f"there are {len(found)} workloads ({titles}), each with a policy of its own: choose with --select, name "
            "a folder with --output, or use --annotate"
        )
    if output is not None:
        yield output, found[0].text


def _annotated(
    sources: Sequence[Path], data: bytes, found: Sequence[Generated], target: Path | None
) -> tuple[Path, bytes]:
    """The manifest with policies and digests; the difference is shown."""
    if len(sources) != 1 or not found[0].title:
        raise SourceError("--annotate needs one file of Kubernetes manifests")
    if target is None and str(sources[0]) == "-":
        raise SourceError("--annotate cannot change standard input: name a file with --annotate-to")
    text = data.decode("utf-8-sig")
    by_title = {one.title: one for one in found}
    changed = annotate(
        text, [_change(by_title.get(title)) for title in _titles(text, sources[0].name)]
    )
    for line in difflib.unified_diff(
        text.splitlines(), changed.splitlines(), "before", "after", lineterm="", n=0
    ):
        click.echo(line if len(line) < 200 else line[:120] + "...", err=True)
    return target or sources[0], changed.encode()


def _titles(text: str, name: str) -> list[str]:
    from parma_tenant.source.document import read_documents
    from parma_tenant.source.kubernetes import read_manifests

    manifests = read_manifests([(name, node) for node in read_documents(text.encode(), name)])
    return [workload.title for workload in manifests.workloads]


def _change(one: Generated | None) -> Change | None:
    if one is None:
        return None
    annotation_value(one.text)
    pins = {
        name: f"{image.reference}@{image.digest}"
        for name, image in one.images.items()
        if image.pinnable and "@" not in name
    }
    return Change(one.text, pins)


def write_all(writes: Sequence[tuple[Path, bytes]]) -> None:
    """All files or none: each is complete beside its place before the first one is moved. Raises SourceError.

    A device or a pipe is written to at the end; it must not be replaced by a file.
    """
    parts: list[tuple[Path, Path]] = []
    special = [(path, data) for path, data in writes if path.exists() and not path.is_file()]
    try:
        for path, data in writes:
            if (path, data) in special:
                continue
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            parts.append((part, path))
            part.write_bytes(data)
        for part, path in parts:
            os.replace(part, path)  # noqa: PTH105
        for path, data in special:
            path.write_bytes(data)
    except OSError as error:
        raise SourceError(
            f"{error.filename2 or error.filename or 'the file'} cannot be written: {error.strerror}"
        ) from error
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)
