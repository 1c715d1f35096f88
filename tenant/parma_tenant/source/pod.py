"""A pod's spec as a group: what containerd will ask of the agent for it. Refused with its line is what cannot run.

Sources: Kubernetes API reference v1.34 (PodSpec, Container); k8s.io/kubernetes pkg/kubelet (security context,
probes, lifecycle).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from parma_tenant.generate.model import ExecRule
from parma_tenant.image.signals import signal_number
from parma_tenant.source.capabilities import seccomp_digest_of
from parma_tenant.source.environment import Scope, lookup, resolver, variables
from parma_tenant.source.expansion import Text, expand
from parma_tenant.source.fields import Fields
from parma_tenant.source.model import (
    TOKEN_FEATURE,
    CapabilityChange,
    ContainerSpec,
    EnvVar,
    GroupSpec,
    RunAs,
)
from parma_tenant.source.volumes import mount_rules, plugins

_POD: Final = frozenset(
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks "
    "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride "
    "imagePullSecrets initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName "
    "readinessGates resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext "
    "serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes".split()
)
_CONTAINER: Final = frozenset(
    "name image imagePullPolicy command args workingDir env envFrom ports resources resizePolicy restartPolicy "
    "restartPolicyRules volumeMounts livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath "
    "terminationMessagePolicy securityContext stdin stdinOnce tty targetContainerName".split()
)
_SECURITY: Final = frozenset(
    "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount readOnlyRootFilesystem runAsGroup "
    "runAsNonRoot runAsUser seLinuxOptions seccompProfile".split()
)
_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class PodContext:
    """What is outside of the pod's spec and enters its policy."""

    origin: str
    scope: Scope = field(default_factory=Scope)
    seccomp: Mapping[str, str] = field(default_factory=dict)
    """Digests of seccomp profiles by their type; of Localhost ones by `Localhost/NAME`."""
    profiles: tuple[str, ...] = ("containerd", "kubernetes")


def parse_pod(pod: Fields, context: PodContext) -> GroupSpec:
    """Raises SourceError."""
    pod.refuse_unknown(_POD)
    for key in _HOST:
        if pod.flag(key):
            pod.fail("a utility VM has namespaces of its own: this is not possible", key)
    if not pod.flag("hostUsers", default=True):
        pod.fail(
            "user namespaces are not offered: the container runs in a VM of its own", "hostUsers"
        )
    system = pod.object("os")
    if system is not None and system.text("name", "linux") != "linux":
        system.fail("containers of a group run on Linux", "name")
    volumes = plugins(pod)
    containers = tuple(
        _container(fields, pod, volumes, context) for key in _LISTS for fields in pod.objects(key)
    )
    if not pod.objects("containers"):
        pod.fail("a pod has a list `containers` with at least one container")
    names = [container.name for container in containers]
    if len(set(names)) < len(names):
        pod.fail("two containers have one name")
    token = pod.flag("automountServiceAccountToken", default=True)
    return GroupSpec(
        context.origin,
        containers,
        profiles=context.profiles,
        without=frozenset() if token else frozenset({TOKEN_FEATURE}),
        notes=_notes(pod),
    )


def _notes(pod: Fields) -> tuple[str, ...]:
    if not pod.flag("enableServiceLinks", default=True):
        return ()
    return (
        "enableServiceLinks is on: variables of Services that are not in the files will be refused; "
        "set `enableServiceLinks: false`",
    )


def _container(
    fields: Fields, pod: Fields, volumes: Mapping[str, str], context: PodContext
) -> ContainerSpec:
    fields.refuse_unknown(_CONTAINER)
    found = variables(fields, context.scope)
    known = resolver(found, context.scope)
    security = fields.object("securityContext")
    common = pod.object("securityContext")
    if security is not None:
        security.refuse_unknown(_SECURITY)
        if security.text("procMount", "Default") != "Default":
            security.fail("an unmasked /proc is not offered", "procMount")
    return ContainerSpec(
        name=fields.label("name"),
        image=fields.text("image"),
        command=_expanded(fields, "command", known),
        args=_expanded(fields, "args", known),
        env=tuple(
            EnvVar(name, value) for name, value in {**context.scope.services, **found}.items()
        ),
        working_dir=fields.text("workingDir", "") or None,
        execs=_execs(fields),
        mounts=mount_rules(fields, volumes, known),
        run_as=_run_as(security, common),
        capabilities=_capabilities(security),
        privileged=security is not None and security.flag("privileged"),
        no_new_privileges=_no_new_privileges(security),
        seccomp=_seccomp(security, common, context.seccomp),
        signals=_stop_signal(fields),
    )


def _expanded(fields: Fields, key: str, known: Mapping[str, Text]) -> tuple[str, ...] | None:
    if not fields.has(key):
        return None
    done = []
    for text in fields.texts(key):
        expanded = expand(text, lambda name: lookup(name, known))
        if expanded.literal is None:
            fields.fail(
                f"{text[:80]!r} has a variable whose value only the cluster will know: a policy names the exact "
                "command; read the variable in the program instead",
                key,
            )
        done.append(expanded.literal)
    return tuple(done)


def _execs(fields: Fields) -> tuple[ExecRule, ...]:
    """Probes see literal values of `env` as they are written; hooks are not expanded."""
    plain = {
        entry.text("name"): Text.known(entry.text("value", "")) for entry in fields.objects("env")
    }
    commands = []
    for key in _PROBES:
        for action in _actions(fields.object(key)):
            commands.append(tuple(_static(text, plain) for text in action.texts("command")))
    lifecycle = fields.object("lifecycle")
    for key in ("postStart", "preStop"):
        hook = lifecycle.object(key) if lifecycle is not None else None
        commands += [action.texts("command") for action in _actions(hook)]
    return tuple(ExecRule(command) for command in dict.fromkeys(commands) if command)


def _actions(handler: Fields | None) -> list[Fields]:
    action = handler.object("exec") if handler is not None else None
    return [] if action is None else [action]


def _static(text: str, plain: Mapping[str, Text]) -> str:
    return expand(text, plain.get).literal or ""


def _run_as(security: Fields | None, common: Fields | None) -> RunAs:
    def chosen(key: str) -> int | None:
        for fields in (security, common):
            if fields is not None and fields.has(key):
                return fields.number(key)
        return None

    supplemental: tuple[int, ...] = ()
    if common is not None:
        supplemental = common.numbers("supplementalGroups")
        if common.has("fsGroup"):
            supplemental = (*supplemental, common.number("fsGroup"))
    return RunAs(chosen("runAsUser"), chosen("runAsGroup"), supplemental)


def _capabilities(security: Fields | None) -> CapabilityChange:
    change = security.object("capabilities") if security is not None else None
    if change is None:
        return CapabilityChange()
    change.refuse_unknown(("add", "drop"))
    return CapabilityChange(change.texts("add"), change.texts("drop"))


def _no_new_privileges(security: Fields | None) -> bool:
    return security is not None and not security.flag("allowPrivilegeEscalation", default=True)


def _seccomp(security: Fields | None, common: Fields | None, digests: Mapping[str, str]) -> str:
    for fields in (security, common):
        profile = fields.object("seccompProfile") if fields is not None else None
        if profile is None:
            continue
        kind = profile.text("type")
        if kind == "Unconfined" or (security is not None and security.flag("privileged")):
            return ""
        name = kind if kind != "Localhost" else f"Localhost/{profile.text('localhostProfile')}"
        digest = seccomp_digest_of(name, _capabilities(security), digests)
        if digest is None:
            profile.fail(
                f"the digest of the seccomp profile {name} is not known: give it with --seccomp {name}=FILE|SHA256, "
                "or write `type: Unconfined` (the VM is the boundary)",
                "type",
            )
        return digest
    return ""


def _stop_signal(fields: Fields) -> tuple[int, ...]:
    lifecycle = fields.object("lifecycle")
    if lifecycle is None or not lifecycle.has("stopSignal"):
        return ()
    number = signal_number(lifecycle.text("stopSignal"))
    if number is None:
        lifecycle.fail("there is no such signal", "stopSignal")
    return (number,)
