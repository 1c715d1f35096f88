"""A policy out of a group's description, its images and what is known of their layers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from parma_api.policy.defaults import PRIVILEGED_CAPABILITIES
from parma_tenant.generate.model import (
    END_SIGNALS,
    CapabilityRule,
    Container,
    EnvRule,
    IdName,
    PlatformRule,
    Policy,
    Strategy,
    UserRule,
)
from parma_tenant.image.accounts import Who, accounts_of, resolve
from parma_tenant.image.documents import ImageConfig
from parma_tenant.image.hashing import HashedLayer
from parma_tenant.image.image import Image
from parma_tenant.image.signals import signal_number
from parma_tenant.profiles.profile import Profile
from parma_tenant.source.capabilities import capability_names
from parma_tenant.source.errors import SourceError
from parma_tenant.source.expansion import escaped
from parma_tenant.source.model import ContainerSpec, EnvVar, GroupSpec

_DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What containerd gives to a container whose image and description have none."""


@dataclass(frozen=True, slots=True)
class Built:
    """A policy, and remarks for its author."""

    policy: Policy
    notes: tuple[str, ...]


def build_policy(
    group: GroupSpec,
    images: Mapping[str, Image],
    layers: Mapping[str, HashedLayer],
    profiles: Sequence[Profile] = (),
) -> Built:
    """`images` by the name in the file, `layers` by diff id. Raises SourceError, ImageError."""
    notes = list(group.notes)
    known = _privileged_capabilities(profiles)
    containers = []
    for spec in group.containers:
        image = images[spec.image]
        notes += _volume_notes(spec, image)
        containers.append(_container(spec, image, layers, known, notes))
    policy = Policy(
        tuple(containers),
        allow_port_forward=group.port_forward,
        platform_rules=_platform_rules(profiles, group.without),
        header=_header(group, images, profiles),
    )
    return Built(policy, tuple(dict.fromkeys(notes)))


def _privileged_capabilities(profiles: Sequence[Profile]) -> tuple[str, ...]:
    named = [profile.privileged_capabilities for profile in profiles]
    return next((names for names in named if names is not None), PRIVILEGED_CAPABILITIES)


def _container(
    spec: ContainerSpec,
    image: Image,
    layers: Mapping[str, HashedLayer],
    privileged: tuple[str, ...],
    notes: list[str],
) -> Container:
    known = [layers[layer.diff_id] for layer in image.layers]
    return Container(
        name=spec.name,
        layers=tuple(layer.root_hash for layer in known),
        command=command_of(spec, image.config),
        env_rules=_env_rules(spec, image.config),
        working_dir=spec.working_dir or image.config.working_dir or "/",
        mounts=spec.mounts,
        exec_processes=spec.execs,
        signals=_signals(spec, image),
        user=_user(spec, image, known, notes),
        capabilities=_capabilities(spec, privileged),
        seccomp_profile_sha256=spec.seccomp,
        allow_elevated=spec.privileged,
        allow_stdio_access=spec.stdio,
        no_new_privileges=spec.no_new_privileges,
    )


def command_of(spec: ContainerSpec, config: ImageConfig) -> tuple[str, ...]:
    """Kubernetes' rules: `command` replaces the image's entrypoint and its Cmd too, `args` the Cmd."""
    given = spec.args or ()
    command = (*spec.command, *given) if spec.command else _image_command(given, config)
    if not command:
        raise SourceError(
            f"container {spec.name}: neither it nor its image {spec.image} says what to run: give `command`"
        )
    return command


def _image_command(args: tuple[str, ...], config: ImageConfig) -> tuple[str, ...]:
    return (*config.entrypoint, *(args or config.cmd))


def _env_rules(spec: ContainerSpec, config: ImageConfig) -> tuple[EnvRule, ...]:
    """The group's variables replace those of the image that have the same name."""
    given = {variable.name for variable in spec.env}
    rules = [EnvRule(text) for text in config.env if text.partition("=")[0] not in given]
    rules += [_env_rule(variable) for variable in spec.env]
    if "PATH" not in given and not any(text.startswith("PATH=") for text in config.env):
        rules.append(EnvRule(_DEFAULT_PATH))
    return tuple(dict.fromkeys(rules))


def _env_rule(variable: EnvVar) -> EnvRule:
    if variable.value.literal is not None:
        return EnvRule(f"{variable.name}={variable.value.literal}")
    return EnvRule(f"{escaped(variable.name)}={variable.value.pattern}", Strategy.RE2)


def _signals(spec: ContainerSpec, image: Image) -> tuple[int, ...]:
    """Those that end a container, and the image's own stop signal."""
    own = signal_number(image.config.stop_signal) if image.config.stop_signal else None
    return tuple(sorted({*END_SIGNALS, *spec.signals, *([] if own is None else [own])}))


def _user(
    spec: ContainerSpec, image: Image, layers: Sequence[HashedLayer], notes: list[str]
) -> UserRule:
    accounts = accounts_of([layer.facts for layer in layers])
    found = [resolve(text, accounts, image.reference) for text in _user_texts(spec, image.config)]
    known = [who for who in found if who is not None]
    if len(known) < len(found):
        notes.append(
            f"container {spec.name}: the image's /etc/passwd or group is a link or very large, so any user is "
            "allowed: give runAsUser and runAsGroup (`user` and `group`)"
        )
        return UserRule()
    return _user_rule(known, spec.run_as.supplemental)


def _user_texts(spec: ContainerSpec, config: ImageConfig) -> list[str]:
    """What containerd is told. kubelet takes the user out of the image's `user:group`, ctr and crictl both."""
    run_as = spec.run_as
    if run_as.user is not None:
        return [str(run_as.user) + ("" if run_as.group is None else f":{run_as.group}")]
    user = config.user.partition(":")[0]
    if run_as.group is not None:
        return [f"{user or '0'}:{run_as.group}"]
    return list(dict.fromkeys([config.user, user]))


def _user_rule(known: Sequence[Who], supplemental: Iterable[int]) -> UserRule:
    groups = dict.fromkeys(
        [group for who in known for group in who.groups[:1]]
        + [group for who in known for group in who.groups[1:]]
        + list(supplemental)
    )
    return UserRule(
        IdName(str(known[0].user), "id"), tuple(IdName(str(group), "id") for group in groups)
    )


def _capabilities(spec: ContainerSpec, privileged: tuple[str, ...]) -> CapabilityRule:
    names = set(privileged) if spec.privileged else capability_names(spec.capabilities)
    listed = tuple(sorted(names))
    return CapabilityRule(listed, listed, (), listed, ())


def _volume_notes(spec: ContainerSpec, image: Image) -> list[str]:
    covered = {mount.destination.rstrip("/") for mount in spec.mounts}
    return [
        f"container {spec.name}: the image declares VOLUME {path}, and nothing is mounted there: containerd would give "
        f"it a folder of the host's, which a utility VM refuses; mount an emptyDir at {path}"
        for path in image.config.volumes
        if path.rstrip("/") not in covered
    ]


def _platform_rules(
    profiles: Sequence[Profile], without: frozenset[str]
) -> tuple[PlatformRule, ...]:
    """One rule: several would be alternatives."""
    env = [entry.rule for profile in profiles for entry in profile.env]
    mounts = [
        entry.rule
        for profile in profiles
        for entry in profile.mounts
        if entry.feature not in without or not entry.feature
    ]
    if not env and not mounts:
        return ()
    return (PlatformRule(tuple(dict.fromkeys(env)), tuple(dict.fromkeys(mounts))),)


def _header(
    group: GroupSpec, images: Mapping[str, Image], profiles: Sequence[Profile]
) -> tuple[str, ...]:
    lines = [f"Made by `parma policy generate` from {group.origin}.", "", "Images:"]
    for spec in group.containers:
        image = images[spec.image]
        pinned = f"@{image.digest}" if image.digest and "@" not in image.reference else ""
        lines.append(f"  {spec.name}: {image.reference}{pinned}")
    titles = ", ".join(profile.title for profile in profiles)
    return (*lines, "", f"Node profiles: {titles or 'none'}.")
