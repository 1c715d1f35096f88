"""The lock file of Debian packages: which exact .deb files the images are made of. Pure.

A line is `set name version sha256 size archive path`: `archive` is the name of a Debian archive
(`debian`, `debian-security`), `path` the file's place beneath it. Mirrors are the machine's own
business; the date in the header is when the archives held all of these together, for a snapshot
service to find them after a mirror has moved on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .config import BuildError


@dataclass(frozen=True, slots=True, order=True)
class Deb:
    """One package of one set."""

    set_name: str
    name: str
    version: str
    sha256: str
    size: int
    archive: str
    path: str

    @property
    def file_name(self) -> str:
        """The name of the package in the cache: by content, so that a lock change cannot mix."""
        return f"{self.sha256}.deb"


@dataclass(frozen=True, slots=True)
class Lock:
    """All packages, and the time stamp (YYYYMMDDTHHMMSSZ) at which they were current."""

    snapshot: str
    debs: tuple[Deb, ...]

    def of_set(self, name: str) -> tuple[Deb, ...]:
        """The packages of one set, in the order of the file."""
        return tuple(deb for deb in self.debs if deb.set_name == name)


_HEADER = re.compile(r"^# snapshot (\d{8}T\d{6}Z)$", re.MULTILINE)
_LINE = re.compile(
    r"^(?P<set>[a-z]+) (?P<name>[a-z0-9.+-]+) (?P<version>[\w.+~:-]+) (?P<sha256>[0-9a-f]{64})"
    r" (?P<size>\d+) (?P<archive>debian(?:-security)?) (?P<path>pool/[\w.+~%:/-]+\.deb)$"
)


def parse(text: str) -> Lock:
    """Reads a lock file; BuildError names the line that is not as it should be."""
    header = _HEADER.search(text)
    if header is None:
        raise BuildError("debs.lock has no `# snapshot` line; renew it with --refresh-lock")
    debs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None or ".." in found["path"]:
            raise BuildError(f"debs.lock line {number} is not a package; renew it: --refresh-lock")
        debs.append(
            Deb(
                found["set"],
                found["name"],
                found["version"],
                found["sha256"],
                int(found["size"]),
                found["archive"],
                found["path"],
            )
        )
    return Lock(header[1], tuple(debs))


def render(lock: Lock) -> str:
    """The text of a lock file; parse() gives the lock back."""
    lines = [
        "# The exact Debian packages of the utility VM; written by `build.py --refresh-lock`.",
        "# set name version sha256 size archive path",
        f"# snapshot {lock.snapshot}",
        *(
            f"{d.set_name} {d.name} {d.version} {d.sha256} {d.size} {d.archive} {d.path}"
            for d in sorted(lock.debs)
        ),
    ]
    return "\n".join(lines) + "\n"
