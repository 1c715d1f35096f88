"""The cluster's programs, each built once from its pinned Go module."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .home import MODULES, TREE, ClusterError, Home, digest, run, step

KUBERNETES_VERSION = "v1.34.4"
COMMANDS = (
    "kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet kubeadm kubectl"
).split()
"""Names by which the one Kubernetes program is called."""
_FLAGS = ("-trimpath", "-buildvcs=false")
_SETTINGS = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


@dataclass(frozen=True, slots=True)
class Program:
    """A Go program: its folder under .ci/kind, and what is built there."""

    name: str
    package: str = "."
    tags: str = ""
    linker: str = "-s -w"


def _version_flags(version: str) -> str:
    """What `make` of Kubernetes stamps into its programs; kubeadm refuses to work without."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "archive",
        "gitCommit": "0" * 40,
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {p}.{name}={value}" for p in packages for name, value in values.items())


KUBERNETES = Program(
    "kubernetes",
    tags="selinux,notest,grpcnotrace",
    linker=f"-s -w {_version_flags(KUBERNETES_VERSION)}",
)
ETCD = Program("etcd")
COREDNS = Program("coredns")
KIND = Program("kind", "sigs.k8s.io/kind")
HELM = Program("helm", "helm.sh/helm/v3/cmd/helm")


def ensure(home: Home, program: Program) -> Path:
    """The program's path, built now if these inputs were never built before. Raises ClusterError."""
    folder = MODULES / program.name
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    key = digest([*sources, repr((program, _FLAGS, sorted(_SETTINGS.items())))])
    result = home.root / program.name / key / program.name
    if not result.exists():
        with step(f"building {program.name} from its Go module"):
            _build(program, folder, result)
    return result


def _build(program: Program, folder: Path, result: Path) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    go = find_go()
    tags = ["-tags", program.tags] if program.tags else []
    with tempfile.TemporaryDirectory(dir=result.parent) as work:
        made = Path(work) / program.name
        command: list[str | Path] = [
            "nice",
            go,
            "build",
            *_FLAGS,
            *tags,
            "-ldflags",
            program.linker,
            "-o",
            made,
        ]
        command.append(program.package)
        run(command, env=_SETTINGS, cwd=folder, timeout=3600)
        made.replace(result)


def find_go() -> str:
    """The Go that the project's other programs are built with."""
    finder = "import sys; sys.path.insert(0, sys.argv[1]); import build; print(build.find_go(build.pinned_toolchain()))"
    return run([sys.executable, "-c", finder, TREE / ".ci" / "opa"]).strip()


def module_folder(program: Program, module: str) -> Path:
    """Where Go keeps the sources of a module that `program` requires. Raises ClusterError."""
    folder = MODULES / program.name
    go = find_go()
    run([go, "mod", "download", module], env=_SETTINGS, cwd=folder)
    found = run([go, "list", "-m", "-f", "{{.Dir}}", module], env=_SETTINGS, cwd=folder).strip()
    if not found:
        raise ClusterError(f"go list tells no folder of {module}")
    return Path(found)


def command_folder(home: Home) -> Path:
    """A folder with kubectl and its sisters, links to the one program."""
    program = ensure(home, KUBERNETES)
    folder = program.parent / "bin"
    if not folder.exists():
        fresh = folder.with_name(f".bin.{os.getpid()}")
        fresh.mkdir()
        for name in COMMANDS:
            (fresh / name).symlink_to(Path("..") / program.name)
        fresh.rename(folder)
    return folder
