"""Manifests become groups: what kubelet and containerd make of them, and what is refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_tenant.generate.model import ExecRule, MountRule
from parma_tenant.generate.run import Wishes, read_groups
from parma_tenant.source.errors import SourceError
from parma_tenant.source.model import TOKEN_FEATURE, ContainerSpec, GroupSpec, RunAs

NOTHING = Wishes()
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}}


def groups(
    *documents: Any, wishes: Wishes = NOTHING, extra: Any = ()
) -> list[tuple[str, GroupSpec]]:
    files = [("f.yaml", "\n---\n".join(map(json.dumps, documents)).encode())]
    more = [("e.yaml", json.dumps(document).encode()) for document in extra]
    return read_groups(files, more, wishes)


def container(more: Any = None, pod: Any = None, *others: Any, **extra: Any) -> ContainerSpec:
    described = {"name": "c", "image": "app:1", **(more or {})}
    spec = {"containers": [described], "enableServiceLinks": False, **(pod or {})}
    [(_, group)] = groups({**POD, "spec": spec}, *others, **extra)
    return group.containers[0]


def env_of(spec: ContainerSpec) -> dict[str, str]:
    return {
        v.name: v.value.literal if v.value.literal is not None else f"~{v.value.pattern}"
        for v in spec.env
    }


def test_variables_are_expanded_in_order() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)-$$(A)"},
        {"name": "C", "value": "3"},
        {"name": "A", "value": "$(B)"},
    ]
    spec = container({"env": env, "command": ["x", "$(A)"], "args": ["$(NONE)"]})
    assert env_of(spec) == {"A": "1-$(C)-$(A)", "B": "1-$(C)-$(A)", "C": "3"}
    assert spec.command == ("x", "1-$(C)-$(A)")
    assert spec.args == ("$(NONE)",)


def test_references() -> None:
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m"},
        "data": {"k": "v.1", "l": "2"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"p": "eA=="},
        "stringData": {"q": "y"},
    }
    env = [
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "elsewhere", "key": "k"}}},
        {
            "name": "GONE",
            "valueFrom": {"configMapKeyRef": {"name": "m", "key": "x", "optional": True}},
        },
        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "URL", "value": "$(IP):$(K)"},
    ]
    env_from = [{"configMapRef": {"name": "m"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}]
    spec = container({"env": env, "envFrom": env_from}, None, config_map, extra=[secret])
    assert env_of(spec) == {
        "P_k": "v.1",
        "P_l": "2",
        "p": "~(?s:.*)",
        "q": "~(?s:.*)",
        "K": "v.1",
        "S": "~(?s:.*)",
        "NS": "ns",
        "ME": "p",
        "IP": "~[0-9a-fA-F.:]+",
        "CPU": "~[0-9]+",
        "URL": r"~[0-9a-fA-F.:]+:v\.1",
    }


def test_labels_and_annotations() -> None:
    pod = {
        **POD,
        "metadata": {"name": "p", "labels": {"app": "x"}},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "env": [
                        {
                            "name": "L",
                            "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}},
                        },
                        {
                            "name": "M",
                            "valueFrom": {
                                "fieldRef": {"fieldPath": "metadata.annotations['none']"}
                            },
                        },
                    ],
                }
            ]
        },
    }
    [(title, group)] = groups(pod)
    assert title == "pod/p"
    assert env_of(group.containers[0]) == {"L": "x", "M": ""}
    assert any("enableServiceLinks" in note for note in group.notes)


@pytest.mark.parametrize(
    ("kind", "api", "path", "name"),
    [
        (
            "Deployment",
            "apps/v1",
            ["template"],
            r"~w-[bcdfghjklmnpqrstvwxz2456789]+-[bcdfghjklmnpqrstvwxz2456789]{5}",
        ),
        ("StatefulSet", "apps/v1", ["template"], "~w-[0-9]+"),
        ("DaemonSet", "apps/v1", ["template"], "~w-[bcdfghjklmnpqrstvwxz2456789]{5}"),
        ("Job", "batch/v1", ["template"], "~w(-[0-9]+)?-[bcdfghjklmnpqrstvwxz2456789]{5}"),
        (
            "CronJob",
            "batch/v1",
            ["jobTemplate", "spec", "template"],
            "~w-[0-9]+-[bcdfghjklmnpqrstvwxz2456789]{5}",
        ),
    ],
)
def test_kinds(kind: str, api: str, path: list[str], name: str) -> None:
    env = [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    inner: Any = {"spec": {"containers": [{"name": "c", "image": "i", "env": env}]}}
    for step in reversed(path):
        inner = {step: inner}
    document = {"apiVersion": api, "kind": kind, "metadata": {"name": "w"}, "spec": inner}
    listed = {"apiVersion": "v1", "kind": "List", "items": [document]}
    for given in (document, listed):
        [(title, group)] = groups(given)
        assert title == f"{kind.lower()}/w"
        assert env_of(group.containers[0]) == {"ME": name}
        assert group.origin == f"f.yaml {title}"


def test_several_workloads_and_selection() -> None:
    pods = [
        {**POD, "metadata": {"name": n}, "spec": {"containers": [{"name": n, "image": "i"}]}}
        for n in "ab"
    ]
    assert [title for title, _ in groups(*pods)] == ["pod/a", "pod/b"]
    for wanted in ("pod/b", "b"):
        assert [title for title, _ in groups(*pods, wishes=Wishes(select=wanted))] == ["pod/b"]
    with pytest.raises(SourceError, match="pod/a, pod/b"):
        groups(*pods, wishes=Wishes(select="c"))


def test_services_of_the_same_file() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "my-db", "namespace": "ns"},
        "spec": {"ports": [{"name": "sql", "port": 5432}]},
    }
    env = env_of(container({}, {"enableServiceLinks": True}, service))
    assert env["MY_DB_SERVICE_PORT"] == env["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert env["MY_DB_SERVICE_HOST"] == "~[0-9a-fA-F.:]+"
    assert env["MY_DB_PORT"] == env["MY_DB_PORT_5432_TCP"] == r"~tcp://\[?[0-9a-fA-F.:]+\]?:5432"
    assert env["MY_DB_PORT_5432_TCP_PROTO"] == "tcp"
    assert env_of(container({}, None, service)) == {}


def test_mounts_are_those_of_kubelet() -> None:
    volumes = [
        {"name": "e"},
        {"name": "c", "configMap": {"name": "m"}},
        {"name": "s", "secret": {"secretName": "x"}},
        {"name": "p", "projected": {"sources": []}},
        {"name": "d", "downwardAPI": {}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [
        {"name": "e", "mountPath": "/e"},
        {"name": "e", "mountPath": "/ro", "readOnly": True},
        {"name": "c", "mountPath": "/c"},
        {"name": "s", "mountPath": "/s"},
        {"name": "p", "mountPath": "/p"},
        {"name": "d", "mountPath": "/d"},
        {"name": "m", "mountPath": "/m"},
        {"name": "c", "mountPath": "/f", "subPath": "f.conf"},
    ]
    spec = container({"volumeMounts": mounts}, {"volumes": volumes})

    def rule(destination: str, name: str, access: str) -> MountRule:
        return MountRule(destination, f"sandbox:///{name}", ("rbind", "rprivate", access))

    assert spec.mounts == (
        rule("/e", "volumes/empty-dir/e", "rw"),
        rule("/ro", "volumes/empty-dir/e", "ro"),
        rule("/c", "volumes/configmap/c", "ro"),
        rule("/s", "volumes/secret/s", "ro"),
        rule("/p", "volumes/projected/p", "ro"),
        rule("/d", "volumes/downward-api/d", "ro"),
        rule("/m", "volumes/empty-dir/m", "rw"),
        rule("/f", "subpaths/c/c/7", "ro"),
        rule("/dev/termination-log", "logs/c/termination-log", "rw"),
    )


@pytest.mark.parametrize(
    ("wanted", "option"),
    [("None", "rprivate"), ("HostToContainer", "rslave"), ("Bidirectional", "rshared")],
)
def test_mounts_propagate_in_an_empty_dir(wanted: str, option: str) -> None:
    mounts = [{"name": "e", "mountPath": "/e", "mountPropagation": wanted}]
    spec = container({"volumeMounts": mounts}, {"volumes": [{"name": "e"}]})
    rule = MountRule("/e", "sandbox:///volumes/empty-dir/e", ("rbind", option, "rw"))
    assert spec.mounts[0] == rule


def test_parts_of_an_empty_dir_are_shared_by_name() -> None:
    volumes = [{"name": "e"}, {"name": "c", "configMap": {"name": "m"}}]
    env = [
        {"name": "ROLE", "value": "a.b"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    mounts = [
        {"name": "e", "mountPath": "/1", "subPath": "a.b/./c/"},
        {"name": "e", "mountPath": "/2", "subPathExpr": "$(ROLE)/x"},
        {"name": "e", "mountPath": "/3", "subPathExpr": "logs/$(POD)"},
        {"name": "e", "mountPath": "/4", "subPath": "."},
        {"name": "c", "mountPath": "/5", "subPathExpr": "$(ROLE)"},
    ]
    spec = container({"volumeMounts": mounts, "env": env}, {"volumes": volumes})
    assert [rule.source for rule in spec.mounts[:5]] == [
        r"sandbox:///volumes/empty-dir/e/a\.b/c",
        r"sandbox:///volumes/empty-dir/e/a\.b/x",
        "sandbox:///volumes/empty-dir/e/logs/[^/]+",
        "sandbox:///volumes/empty-dir/e",
        "sandbox:///subpaths/c/c/4",
    ]
    assert spec.mounts[2].example == "sandbox:///volumes/empty-dir/e/logs/10.0.0.1"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPath": "../x"}, "without `..`"),
        ({"subPath": "/x"}, "relative"),
        ({"subPath": "x", "subPathExpr": "y"}, "either"),
        ({"subPathExpr": "$(NONE)"}, "no variable NONE"),
        ({"subPathExpr": "a/$(UP)"}, "without `..`"),
    ],
)
def test_parts_that_kubelet_would_refuse(mount: dict[str, str], message: str) -> None:
    described = {
        "volumeMounts": [{"name": "e", "mountPath": "/e", **mount}],
        "env": [{"name": "UP", "value": ".."}],
    }
    with pytest.raises(SourceError, match=message):
        container(described, {"volumes": [{"name": "e"}]})


def test_probes_and_hooks_are_execs() -> None:
    spec = container(
        {
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}],
            "livenessProbe": {"exec": {"command": ["check", "$(B)"]}},
            "readinessProbe": {"exec": {"command": ["check", "$(B)"]}},
            "startupProbe": {"httpGet": {"port": 80}},
            "lifecycle": {
                "postStart": {"exec": {"command": ["up", "$(A)"]}},
                "preStop": {"sleep": {"seconds": 1}},
                "stopSignal": "SIGUSR1",
            },
        }
    )
    assert spec.execs == (ExecRule(("check", "$(A)")), ExecRule(("up", "$(A)")))
    assert spec.signals == (10,)


def test_security_contexts() -> None:
    pod = {
        "securityContext": {
            "runAsUser": 1,
            "runAsGroup": 2,
            "fsGroup": 3,
            "supplementalGroups": [4],
        },
        "automountServiceAccountToken": False,
    }
    security = {
        "runAsUser": 5,
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
    }
    spec = container({"securityContext": security}, pod)
    assert spec.run_as == RunAs(5, 2, (4, 3))
    assert spec.no_new_privileges
    assert spec.capabilities.add == ("NET_ADMIN",)
    described = {**POD, "spec": {"containers": [{"name": "c", "image": "i"}], **pod}}
    assert groups(described)[0][1].without == {TOKEN_FEATURE}


def test_seccomp_needs_a_digest() -> None:
    digest = "a" * 64
    security = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
    spec = container(security, wishes=Wishes(seccomp={"RuntimeDefault": digest}))
    assert spec.seccomp == digest
    with pytest.raises(SourceError, match="--seccomp RuntimeDefault="):
        container(security)
    assert (
        container(
            security | {"securityContext": {"privileged": True, **security["securityContext"]}}
        ).seccomp
        == ""
    )


@pytest.mark.parametrize(
    ("more", "pod", "why"),
    [
        (
            {
                "args": ["$(POD)"],
                "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            },
            {},
            "only the cluster",
        ),
        ({"command": ["$(KUBERNETES_SERVICE_HOST)"]}, {}, "only the cluster"),
        ({}, {"hostNetwork": True}, "hostNetwork: a utility VM"),
        ({}, {"hostPID": True}, "hostPID"),
        ({}, {"hostUsers": False}, "hostUsers"),
        (
            {},
            {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
            "hostPath: a hostPath is the host's own",
        ),
        (
            {},
            {"volumes": [{"name": "h", "persistentVolumeClaim": {"claimName": "x"}}]},
            "persistentVolumeClaim",
        ),
        ({}, {"volumes": [{"name": "h", "emptyDir": {"medium": "HugePages-2Mi"}}]}, "huge pages"),
        ({"volumeMounts": [{"name": "n", "mountPath": "/n"}]}, {}, "the pod has no volume n"),
        (
            {
                "volumeMounts": [
                    {"name": "e", "mountPath": "/n", "mountPropagation": "Bidirectional"}
                ]
            },
            {"volumes": [{"name": "e", "configMap": {"name": "m"}}]},
            "in an emptyDir only",
        ),
        (
            {"volumeMounts": [{"name": "e", "mountPath": "/n", "mountPropagation": "Both"}]},
            {"volumes": [{"name": "e"}]},
            "one of None, HostToContainer, Bidirectional",
        ),
        (
            {"volumeDevices": [{"name": "e", "devicePath": "/n"}]},
            {},
            "volumeDevices: there is no such member",
        ),
        ({"securityContext": {"procMount": "Unmasked"}}, {}, "procMount"),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]},
            {},
            "give it with --with",
        ),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, {}, "keys are not known"),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
            {},
            "no field of a pod",
        ),
        ({"env": [{"name": "A", "value": 1}]}, {}, "must be a text"),
        ({"env": [{"name": "A=", "value": "1"}]}, {}, "no name of a variable"),
        ({"command": "sh"}, {}, "must be a list"),
        ({"lifecycle": {"stopSignal": "SIGNONE"}}, {}, "no such signal"),
        ({}, {"os": {"name": "windows"}}, "Linux"),
        ({"image": 7}, {}, "must be a text"),
        ({}, {"contaners": []}, "contaners: there is no such member"),
    ],
)
def test_refusals(more: Any, pod: Any, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        container(more, pod)
    assert why in caught.value.message
    assert caught.value.message.startswith("f.yaml")
    assert "\n" not in caught.value.message


def test_a_refusal_names_the_line() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n"
        "  - name: c\n    image: i\n    args:\n    - $(X_SERVICE_HOST)\n"
    )
    with pytest.raises(
        SourceError,
        match=r"^f\.yaml:9: spec\.containers\[0\]\.args: '\$\(X_SERVICE_HOST\)' has a variable",
    ):
        read_groups([("f.yaml", text.encode())], [], Wishes())


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"apiVersion": "v1", "kind": "Widget"}, "kind Widget is not known here"),
        ({"apiVersion": "apps/v1", "kind": "Pod", "metadata": {"name": "p"}}, "no Pod in this API"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}}, "there are: none"),
        ({**POD}, "`spec` is missing"),
        ({**POD, "spec": {}}, "at least one container"),
        (
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": "p"},
                "spec": {"volumeClaimTemplates": [{}], "template": {}},
            },
            "volume of the cluster",
        ),
        (
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "p"}, "spec": {}},
            "`template` is missing",
        ),
        (
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "p"}, "data": {"a": "?"}},
            "no base64",
        ),
    ],
)
def test_objects_that_are_refused(document: Any, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        groups(document)
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("capabilities", "starts"),
    [
        ({}, ("b9205bff", "44d44def", "2c602feb")),
        ({"drop": ["ALL"]}, ("a1f5f719", "f8d7a0c5", "56c20b13")),
        (
            {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            ("a1f5f719", "f8d7a0c5", "56c20b13"),
        ),
        ({"drop": ["SYS_CHROOT"]}, ("a1f5f719", "f8d7a0c5", "56c20b13")),
        ({"add": ["SYS_PTRACE"]}, ("f0f08716", "4e042a88", "9c1e0056")),
    ],
)
def test_the_default_seccomp_profile_depends_on_capabilities(
    capabilities: Any, starts: tuple[str, ...]
) -> None:
    """The digests are those of what containerd 1.6.20, 1.7.24 and 2.1.9 write for such containers."""
    security = {"capabilities": capabilities, "seccompProfile": {"type": "RuntimeDefault"}}
    for version, start in zip(("1.6", "1.7", "2.1"), starts, strict=True):
        wishes = Wishes(profiles=(f"containerd@{version}",))
        assert container({"securityContext": security}, wishes=wishes).seccomp.startswith(start)


def test_a_seccomp_profile_for_other_capabilities_is_not_known() -> None:
    security = {
        "capabilities": {"add": ["SYS_ADMIN", "SYS_PTRACE"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    with pytest.raises(SourceError, match="is not known"):
        container({"securityContext": security}, wishes=Wishes(profiles=("containerd@1.6",)))


def test_init_and_sidecar_containers_come_first() -> None:
    spec = {
        "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "i"}],
        "ephemeralContainers": [{"name": "e", "image": "i"}],
    }
    [(_, group)] = groups({**POD, "spec": spec})
    assert [member.name for member in group.containers] == ["i", "c", "e"]
