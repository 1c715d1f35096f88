"""The node's root file system: Debian with systemd, containerd and what kind's base image has."""

from __future__ import annotations

import shutil
from pathlib import Path

from .home import SUITE, Home, digest, run, step
from .programs import COMMANDS, KIND, KUBERNETES, KUBERNETES_VERSION, module_folder

PACKAGES = (
    "systemd systemd-sysv dbus conntrack iptables nftables iproute2 ethtool util-linux mount kmod libseccomp2 bash "
    "ca-certificates curl jq procps socat ebtables containerd runc containernetworking-plugins"
).split()
"""kind's list, and the runtime. QEMU is not among them: Parma's DaemonSet brings its own."""
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_UNITS = ("kubelet.service", "containerd.service", "undo-mount-hacks.service")
_UNWANTED = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
    "lib/systemd/system/containerd.service",
)
"""What kind's Dockerfile removes, and the unit of Debian's containerd, in place of which kind has its own."""
_INSTALLED = (
    ("usr/local/bin/entrypoint", 0o755),
    ("kind/bin/*", 0o755),
    ("etc/containerd/config.toml", 0o644),
    ("etc/crictl.yaml", 0o644),
    ("etc/default/kubelet", 0o644),
    ("etc/sysctl.d/*", 0o644),
    ("etc/systemd/system/*.service", 0o644),
    ("etc/systemd/system/*.slice", 0o644),
    ("etc/systemd/system/kubelet.service.d/*", 0o644),
)
_NETWORK = """\
{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""
"""One node needs no daemon for its network; kind's own (kindnetd) is no Go module."""
_SPEC_FILTER = (
    '.hooks.createContainer[.hooks.createContainer|length] |= . + {"path":"/kind/bin/mount-product-files.sh"}'
    " | del(.process.rlimits)"
)


def debian(home: Home) -> Path:
    """The packages unpacked and configured, as a tar. Raises ClusterError."""
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", *options]
    command.append("--include=" + ",".join(PACKAGES))
    archive = home.root / "debian" / f"{digest([*command, SUITE])}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part.tar")
        with step("node root file system (mmdebstrap)"):
            run(["nice", *command, SUITE, part], timeout=1800)
        part.rename(archive)
    return archive


def assemble(home: Home, root: Path, commands: Path) -> None:
    """Makes `root` a kind node without images. Raises ClusterError."""
    run(["tar", "-xpf", debian(home), "-C", root], timeout=900)
    _install_kind_files(module_folder(KIND, "sigs.k8s.io/kind") / "images/base/files", root)
    _set_up_systemd(root)
    _set_up_containerd(root)
    for name in (
        "etc/kubernetes/manifests",
        "opt/cni/bin",
        "etc/cni/net.d",
        "kind/manifests",
        "LICENSES",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    run(["cp", "-a", f"{root}/usr/lib/cni/.", f"{root}/opt/cni/bin/"])
    (root / "etc/cni/net.d/10-bridge.conflist").write_text(_NETWORK)
    _install_kubernetes(root, commands)


def _install_kind_files(files: Path, root: Path) -> None:
    for pattern, mode in _INSTALLED:
        for source in sorted(files.glob(pattern)):
            target = root / source.relative_to(files)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(mode)


def _set_up_systemd(root: Path) -> None:
    # kind's own units lie in etc/systemd/system itself, which no pattern touches.
    for pattern in _UNWANTED:
        for path in root.glob(pattern):
            path.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")
    run(["systemctl", f"--root={root}", "enable", *_UNITS])
    run(["systemctl", f"--root={root}", "mask", "systemd-binfmt.service"])


def _set_up_containerd(root: Path) -> None:
    for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    config = root / "etc/containerd/config.toml"
    text = config.read_text()
    # Machines without CAP_SYS_RESOURCE cannot lower oom_score_adj, in the node as little as outside.
    text = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    # Parma reads layers from the content store: containerd must keep them once they are unpacked.
    text = text.replace("discard_unpacked_layers = true", "discard_unpacked_layers = false")
    config.write_text(text)
    unit = root / "etc/systemd/system/containerd.service"
    kept = [
        line for line in unit.read_text().splitlines() if not line.startswith("OOMScoreAdjust=")
    ]
    unit.write_text("\n".join(kept) + "\n")
    spec = run(["chroot", root, "ctr", "oci", "spec"])
    (root / "etc/containerd/cri-base.json").write_text(
        run(["jq", _SPEC_FILTER], stdin=spec.encode())
    )


def _install_kubernetes(root: Path, commands: Path) -> None:
    program = root / "usr/bin" / KUBERNETES.name
    shutil.copyfile((commands / COMMANDS[0]).resolve(), program)
    program.chmod(0o755)
    for name in ("kubeadm", "kubelet", "kubectl"):
        (root / "usr/bin" / name).symlink_to(KUBERNETES.name)
    (root / "kind/version").write_text(KUBERNETES_VERSION)
