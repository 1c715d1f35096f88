"""A policy out of a group's description, its images and the root hashes of their layers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parma_api.ids import RootHash
from parma_tenant.generate.model import Container, EnvRule, Policy, Strategy
from parma_tenant.image.documents import ImageConfig
from parma_tenant.image.image import Image
from parma_tenant.source.errors import SourceError
from parma_tenant.source.model import ContainerSpec, GroupSpec

ADDED_BY_CRI = (EnvRule("HOSTNAME=.+", Strategy.RE2), EnvRule("TERM=xterm"))


def build_policy(
    group: GroupSpec, images: Mapping[str, Image], roots: Mapping[str, RootHash]
) -> Policy:
    """`images` by the name in the file, `roots` by diff id. Raises SourceError."""
    containers = tuple(
        build_container(spec, images[spec.image], roots) for spec in group.containers
    )
    return Policy(containers, allow_port_forward=group.port_forward)


def build_container(spec: ContainerSpec, image: Image, roots: Mapping[str, RootHash]) -> Container:
    """Raises SourceError."""
    return Container(
        name=spec.name,
        layers=tuple(roots[layer.diff_id] for layer in image.layers),
        command=command_of(spec, image.config),
        env_rules=_env_rules(spec, image.config),
        working_dir=spec.working_dir or image.config.working_dir or "/",
        mounts=spec.mounts,
        exec_processes=spec.execs,
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
    rules += [
        EnvRule(f"{variable.name}={variable.value}", variable.strategy, variable.required)
        for variable in spec.env
    ]
    return tuple(_distinct([*rules, *ADDED_BY_CRI]))


def _distinct(rules: Iterable[EnvRule]) -> Iterable[EnvRule]:
    return dict.fromkeys(rules)
