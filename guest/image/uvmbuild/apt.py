"""Debian packages: resolve names to exact files, fetch exact files, unpack them into trees.

Only apt's and mmdebstrap's ordinary clients talk to an archive, and only to the mirrors that the
machine's own apt configuration names.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path
from urllib.parse import unquote

from .config import BuildError, Config
from .lock import Deb, Lock

_FOREIGN = ("LC_", "LANG", "PYTHON", "CFLAGS", "CPATH", "C_INCLUDE", "LD_", "GCC_", "SOURCE_DATE")
ARCHIVES = ("debian", "debian-security")
_KEYRINGS = Path("/usr/share/keyrings")
_URI = re.compile(r"(https?://[^\s\]]+?/(debian(?:-security)?))/?(?=\s|$)")
_PRINTED = re.compile(
    r"^'(?P<uri>\S+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$"
)


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The base address of each Debian archive, without a slash at the end."""

    bases: dict[str, str]

    def split(self, uri: str) -> tuple[str, str]:
        """The archive and the path beneath it; BuildError for a foreign address."""
        for archive in sorted(self.bases, key=len, reverse=True):
            base = self.bases[archive] + "/"
            if uri.startswith(base):
                return archive, uri.removeprefix(base)
        raise BuildError(f"apt names a package outside the mirrors: {uri}")


def host_mirrors(etc_apt: Path = Path("/etc/apt")) -> Mirrors:
    """The mirrors of the machine's apt configuration; $PARMA_DEB_MIRROR (`http://HOST`) overrides."""
    if own := environ.get("PARMA_DEB_MIRROR"):
        return Mirrors({archive: f"{own.rstrip('/')}/{archive}" for archive in ARCHIVES})
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    lines = [line for f in files if f.is_file() for line in f.read_text().splitlines()]
    bases: dict[str, str] = {}
    for line in lines:
        if not line.lstrip().startswith("#"):
            for base, archive in _URI.findall(line):
                bases.setdefault(archive, base)
    if "debian" not in bases:
        raise BuildError(f"no Debian mirror in {etc_apt}: set PARMA_DEB_MIRROR=http://HOST")
    bases.setdefault("debian-security", bases["debian"] + "-security")
    return Mirrors(bases)


def _apt_options(work: Path, config: Config) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Architecture": config.architecture,
        "APT::Architectures": config.architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::ForceHash": "SHA256",
        "Acquire::Languages": "none",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _sources(config: Config, mirrors: Mirrors) -> str:
    keyring = next(iter(sorted(_KEYRINGS.glob("debian-archive-keyring.*"))), None)
    if keyring is None:
        raise BuildError("no Debian keyring: install the package debian-archive-keyring")
    suites = {
        "debian": (config.suite, f"{config.suite}-updates"),
        "debian-security": (f"{config.suite}-security",),
    }
    return "".join(
        f"deb [signed-by={keyring}] {mirrors.bases[archive]} {suite} main\n"
        for archive, names in suites.items()
        for suite in names
    )


def resolve(config: Config, mirrors: Mirrors) -> Lock:
    """What the package names of image.toml mean in the archives today, dependencies included."""
    with tempfile.TemporaryDirectory(prefix="parma-apt-") as folder:
        work = Path(folder)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (work / part).mkdir(parents=True)
        (work / "status").write_text("")
        (work / "sources.list").write_text(_sources(config, mirrors))
        options = _apt_options(work, config)
        run(["apt-get", *options, "-qq", "update"])
        debs = [
            deb
            for set_name, packages in config.sets.items()
            for deb in _resolve_set(set_name, packages, options, mirrors)
        ]
    return Lock(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), tuple(sorted(debs)))


def _resolve_set(
    set_name: str, packages: Sequence[str], options: list[str], mirrors: Mirrors
) -> Iterable[Deb]:
    if set_name == "kernel":  # the meta package's one dependency, alone
        shown = run(["apt-cache", *options, "depends", "--important", *packages])
        names = re.findall(r"Depends: (linux-image-\S+)", shown)
        command = ["apt-get", *options, "-qq", "--print-uris", "download", names[0]]
    else:
        command = ["apt-get", *options, "-qq", "-y", "--print-uris", "install", *packages]
    for line in run(command).splitlines():
        found = _PRINTED.match(line.strip())
        if found is None:
            continue
        # The local name keeps the version's epoch, which the archive's path leaves out.
        name, version, _ = unquote(found["file"]).split("_")
        archive, path = mirrors.split(found["uri"])
        yield Deb(set_name, name, version, found["sha256"], int(found["size"]), archive, path)


def fetch(lock: Lock, store: Path) -> None:
    """Leaves every package of the lock in `store`, each checked against its hash."""
    store.mkdir(parents=True, exist_ok=True)
    missing = {deb.file_name: deb for deb in lock.debs if not (store / deb.file_name).exists()}
    if not missing:
        return
    mirrors = host_mirrors()
    if _download(missing.values(), mirrors.bases, store):
        return
    gone = [deb for deb in missing.values() if not (store / deb.file_name).exists()]
    for deb in list(gone):
        if _download([deb], mirrors.bases, store):
            gone.remove(deb)
    if gone and (service := environ.get("PARMA_DEB_SNAPSHOT")):
        base = f"{service.rstrip('/')}/archive"
        dated = {archive: f"{base}/{archive}/{lock.snapshot}" for archive in ARCHIVES}
        gone = [deb for deb in gone if not _download([deb], dated, store)]
    if gone:
        names = ", ".join(f"{deb.name} {deb.version}" for deb in gone[:4])
        raise BuildError(
            f"{len(gone)} locked packages could not be had ({names} ...): the archive may have moved on."
            " Give a snapshot service in PARMA_DEB_SNAPSHOT, renew the lock (--refresh-lock),"
            " or build once without it (--unlocked)"
        )


def _download(debs: Iterable[Deb], bases: dict[str, str], store: Path) -> bool:
    """Fetches by apt's own downloader, which checks the hash; false if one of them failed."""
    with tempfile.TemporaryDirectory(dir=store) as work:
        command = [
            "/usr/lib/apt/apt-helper",
            "-q",
            "-o",
            "APT::Sandbox::User=root",
            "download-file",
        ]
        for deb in debs:
            uri = f"{bases[deb.archive]}/{deb.path}"
            command += [uri, f"{work}/{deb.file_name}", f"SHA256:{deb.sha256}"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            return False
        for file in Path(work).glob("*.deb"):
            file.rename(store / file.name)
    return True


def unpack(debs: Sequence[Deb], store: Path, target: Path, config: Config) -> None:
    """Makes `target` a tree of the packages' files: mmdebstrap's extract variant, no scripts run."""
    with tempfile.TemporaryDirectory(prefix="parma-repo-") as folder:
        repository = Path(folder)
        index = []
        for deb in debs:
            (repository / deb.file_name).symlink_to(store / deb.file_name)
            control = run(["dpkg-deb", "--field", str(store / deb.file_name)]).rstrip("\n")
            place = f"Filename: ./{deb.file_name}\nSize: {deb.size}\nSHA256: {deb.sha256}\n"
            index.append(f"{control}\n{place}")
        (repository / "Packages").write_text("\n".join(index))
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            "--mode=root",
            "--format=directory",
        ]
        command += [
            f"--architectures={config.architecture}",
            "--skip=check/empty,cleanup/reproducible",
        ]
        command += ["--include=" + ",".join(deb.name for deb in debs), config.suite, str(target)]
        run([*command, f"deb [trusted=yes] copy:{repository} ./"])


def unpack_alone(debs: Sequence[Deb], store: Path, target: Path) -> None:
    """Unpacks packages without their dependencies."""
    for deb in debs:
        run(["dpkg-deb", "--extract", str(store / deb.file_name), str(target)])


def run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    """Runs a tool and gives its output; BuildError carries the end of what it said on failure."""
    # Proxies and certificates are the machine's; languages, Python's and compilers' settings are not.
    clean = {k: v for k, v in environ.items() if not k.startswith(_FOREIGN)} | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise BuildError(f"{Path(command[0]).name} failed ({done.returncode}): {tail}")
    return done.stdout
