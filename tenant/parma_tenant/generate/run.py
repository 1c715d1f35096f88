"""From files and places of images to policies: reading, looking up, hashing, building. All or nothing."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from parma_tenant.generate.build import build_policy
from parma_tenant.generate.model import ExecRule, Policy
from parma_tenant.generate.rego import render
from parma_tenant.image.hashing import HashCache, HashedLayer, Progress, hash_layers, missing
from parma_tenant.image.image import Image, Layer
from parma_tenant.image.sources import Places, find_images, open_sources
from parma_tenant.profiles.profile import Profile, load_profile
from parma_tenant.source.document import MAX_FILE, Node, read_documents
from parma_tenant.source.errors import SourceError
from parma_tenant.source.fields import Fields
from parma_tenant.source.group import parse_group
from parma_tenant.source.kubernetes import group_of, is_kubernetes, read_manifests
from parma_tenant.source.model import ContainerSpec, GroupSpec

ProgressMaker = Callable[[Sequence[Layer]], Progress]
"""Called once with the layers that have to be hashed."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for besides the files."""

    select: str | None = None
    profiles: tuple[str, ...] = ()
    seccomp: Mapping[str, str] | None = None
    execs: tuple[tuple[str | None, tuple[str, ...]], ...] = ()
    """Container (None: each) and command."""
    ports: tuple[int, ...] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Generated:
    """One group's policy."""

    title: str
    """`kind/name` of the workload; "" for a plain group."""
    group: GroupSpec
    policy: Policy
    text: bytes
    images: Mapping[str, Image]
    layers: Mapping[str, HashedLayer]
    profiles: tuple[Profile, ...]
    notes: tuple[str, ...]

    @property
    def host_data(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text).hexdigest()


def read_file(path: Path) -> bytes:
    """A file, or standard input for `-`. Raises SourceError."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(MAX_FILE + 1)
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def read_groups(
    files: Sequence[tuple[str, bytes]], extra: Sequence[tuple[str, bytes]], wishes: Wishes
) -> list[tuple[str, GroupSpec]]:
    """Titles and groups of the files; `extra` holds what they refer to. Raises SourceError."""
    documents = [(name, node) for name, data in files for node in read_documents(data, name)]
    if not documents:
        raise SourceError(f"{files[0][0] if files else 'the file'} holds nothing")
    kinds = {is_kubernetes(node) for _, node in documents}
    if kinds == {False}:
        if len(documents) > 1:
            raise SourceError(f"{documents[1][0]}: a container-group file has one document")
        name, node = documents[0]
        return [("", parse_group(Fields(node, name)))]
    if kinds != {True}:
        raise SourceError(
            "either Kubernetes manifests or a container-group file: one document has no `kind`"
        )
    more = [(name, node) for name, data in extra for node in read_documents(data, name)]
    return _workloads(documents, more, wishes)


def _workloads(
    documents: Sequence[tuple[str, Node]], more: Sequence[tuple[str, Node]], wishes: Wishes
) -> list[tuple[str, GroupSpec]]:
    manifests = read_manifests(documents)
    others = read_manifests(more)
    all_objects = replace(
        manifests,
        config_maps={**others.config_maps, **manifests.config_maps},
        secrets={**others.secrets, **manifests.secrets},
        services={**others.services, **manifests.services},
    )
    chosen = [
        work for work in manifests.workloads if wishes.select in (None, work.title, work.name)
    ]
    if not chosen:
        titles = ", ".join(work.title for work in manifests.workloads)
        raise SourceError(f"no workload to make a policy for; there are: {titles or 'none'}")
    profiles = chosen_profiles(("containerd", "kubernetes"), wishes.profiles)
    names = tuple(profile.title for profile in profiles)
    digests: dict[str, str] = {}
    for profile in profiles:
        digests.update(profile.seccomp or {})
    digests.update(wishes.seccomp or {})
    return [(work.title, group_of(work, all_objects, digests, names)) for work in chosen]


def chosen_profiles(defaults: Sequence[str], wanted: Sequence[str]) -> tuple[Profile, ...]:
    """The defaults, with those of the same name replaced and the others added. Raises SourceError."""
    named = [load_profile(name) for name in wanted]
    names = {profile.name for profile in named}
    kept = [load_profile(name) for name in defaults if name.partition("@")[0] not in names]
    return (*kept, *named)


def generate(
    titled: Sequence[tuple[str, GroupSpec]],
    places: Places,
    wishes: Wishes,
    cache: HashCache,
    progress: ProgressMaker = lambda _layers: lambda _layer, _read: None,
) -> list[Generated]:
    """Policies of all groups, or none. Raises ApiError."""
    groups = [(title, _wished(group, wishes)) for title, group in titled]
    with ExitStack() as stack:
        sources = open_sources(places, stack)
        names = [spec.image for _, group in groups for spec in group.containers]
        images = find_images(names, sources)
        needed = [layer for image in images.values() for layer in image.layers]
        layers = hash_layers(needed, cache, progress(missing(needed, cache)))
    return [_one(title, group, images, layers, wishes) for title, group in groups]


def _one(
    title: str,
    group: GroupSpec,
    images: Mapping[str, Image],
    layers: Mapping[str, HashedLayer],
    wishes: Wishes,
) -> Generated:
    profiles = chosen_profiles(group.profiles, wishes.profiles)
    built = build_policy(group, images, layers, profiles)
    policy = replace(built.policy, flags=built.policy.flags | wishes.flags)
    text = render(policy).encode()
    used = {spec.image: images[spec.image] for spec in group.containers}
    return Generated(title, group, policy, text, used, layers, profiles, built.notes)


def _wished(group: GroupSpec, wishes: Wishes) -> GroupSpec:
    """With what the command line opens, and what that costs. Raises SourceError."""
    names = {spec.name for spec in group.containers}
    notes = list(group.notes)
    for container, command in wishes.execs:
        if container is not None and container not in names:
            raise SourceError(f"--allow-exec: there is no container {container}")
        notes.append(
            f"--allow-exec {' '.join(command)!r}: whoever controls the host can run this in "
            f"{container or 'every container'}, type into it and read what it prints"
        )
    notes += [
        f"--allow-port-forward {port}: whoever controls the host can connect to port {port} of the pod's loopback"
        for port in wishes.ports
    ]
    containers = tuple(_opened(spec, wishes) for spec in group.containers)
    ports = tuple(dict.fromkeys([*group.port_forward, *wishes.ports]))
    return replace(group, containers=containers, port_forward=ports, notes=tuple(notes))


INTERACTIVE_SIGNALS = (1, 2, 9, 15)


def _opened(spec: ContainerSpec, wishes: Wishes) -> ContainerSpec:
    added = [
        ExecRule(command, INTERACTIVE_SIGNALS)
        for container, command in wishes.execs
        if container in (None, spec.name)
    ]
    if not added:
        return spec
    listed = {rule.command for rule in added}
    kept = [rule for rule in spec.execs if rule.command not in listed]
    return replace(spec, execs=(*kept, *dict.fromkeys(added)), stdio=True)
