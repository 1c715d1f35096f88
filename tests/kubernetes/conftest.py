"""One cluster for the whole run, with Parma in it; pods from manifests, their policies by the tenant's tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from parma_shim.demo import images

from . import testimages
from .cluster import installation, kind
from .cluster.home import ClusterError, Home
from .cluster.kind import NODE, Cluster
from .evidence import pytest_runtest_makereport

T = TypeVar("T")
MANIFESTS = Path(__file__).with_name("manifests")


@dataclass(frozen=True, slots=True)
class Lab:
    """The cluster and what tests do in it."""

    cluster: Cluster
    archives: tuple[Path, ...]
    folder: Path

    def annotated(self, text: str, *options: str) -> str:
        """A manifest with the policies that `parma policy generate` writes for it."""
        number = len(list(self.folder.iterdir()))
        source, target = (self.folder / f"{number}-{name}.yaml" for name in ("source", "annotated"))
        source.write_text(text)
        command = [
            Path(sys.executable).with_name("parma"),
            "policy",
            "generate",
            source,
            "--offline",
        ]
        for archive in self.archives:
            command += ["--archive", archive]
        command += ["--annotate-to", target, *options]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return target.read_text()

    def apply(self, text: str) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin=text)

    def delete(self, text: str, *, seconds: int = 60) -> None:
        """Deletes the objects, and waits until they are gone."""
        self.cluster.kubectl(
            "delete",
            "-f",
            "-",
            "--ignore-not-found",
            f"--timeout={seconds}s",
            stdin=text,
            timeout=seconds + 20,
        )

    def object(self, *words: str) -> dict[str, Any]:
        """What `kubectl get` knows about one object."""
        found: dict[str, Any] = json.loads(self.cluster.kubectl("get", *words, "-o", "json"))
        return found

    def status(self, pod: str, container: str) -> dict[str, Any]:
        """A container's status, of whichever kind it is."""
        status = self.object("pod", pod)["status"]
        kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        rows = [row for kind in kinds for row in status.get(kind, [])]
        return next((row for row in rows if row["name"] == container), {"state": {}})

    def events(self, pod: str, container: str = "") -> str:
        """The messages about a pod, or one of its containers; not those about an earlier one of the same name."""
        selected = f"involvedObject.uid={self.object('pod', pod)['metadata']['uid']}"
        rows = self.object("events", "--field-selector", selected)["items"]
        where = f"{{{container}}}" if container else ""
        return "\n".join(
            row.get("message", "")
            for row in rows
            if row["involvedObject"].get("fieldPath", "").endswith(where)
        )

    def ready(self, *pods: str, seconds: int = 480) -> None:
        """Waits for pods; their events are in the error."""
        words = [f"pod/{pod}" for pod in pods]
        try:
            self.cluster.kubectl(
                "wait",
                "--for=condition=Ready",
                *words,
                f"--timeout={seconds}s",
                timeout=seconds + 20,
            )
        except ClusterError as error:
            raise AssertionError("\n".join([str(error), *map(self.events, pods)])) from error

    def sh(self, pod: str, script: str, container: str = "box", *, check: bool = True) -> str:
        """What a shell of the container prints; its policy must list /bin/sh."""
        command = self.cluster.kubectl_command("exec", "-i", pod, "-c", container, "--", "/bin/sh")
        done = subprocess.run(
            command,
            input=script,
            env={**os.environ, **self.cluster.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done.stdout


def wait_for(check: Callable[[], T], seconds: float = 30) -> T:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, (
            f"it did not come true within {seconds:.0f} s: {found!r}"
        )
        time.sleep(0.5)


def laboratory(folder: Path) -> Lab:
    """A cluster with Parma and the images of the tests; manifests go into `folder`. Raises ClusterError."""
    home = Home.default()
    cluster = kind.up(home)
    archives = (
        images.ensure(home.cache / "demo", lambda _text: None),
        testimages.ensure(home.cache / "demo"),
    )
    for archive in archives:
        cluster.load(archive)
    installation.install(cluster, *installation.node_image())
    return Lab(cluster, archives, folder)


_seconds: dict[str, float] = {}


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _seconds[what] = time.monotonic() - began


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Builds the parts before the first test, once: ten minutes and more, which no test's time is meant for."""
    chosen = any(item.get_closest_marker("kubernetes") for item in session.items)
    if not chosen or session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), _timed("the cluster's parts, built once"):
        try:
            kind.build(Home.default())
        except ClusterError as error:
            print(f"kind: {error}", file=sys.stderr)  # the tests that need it fail with it


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """It is gone when the tests of other folders run."""
    with _timed("cluster and installation"):
        made = laboratory(tmp_path_factory.mktemp("manifests"))
    with _timed("tests in it"):
        yield made
    if not os.environ.get("KEEP"):
        kind.down(made.cluster.home)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long these tests took: there is a limit (20 minutes once the cluster's parts are built)."""
    for what, seconds in _seconds.items():
        terminalreporter.write_line(f"kubernetes: {what}: {seconds:.0f} s")


@pytest.fixture(scope="module")
def applied(lab: Lab) -> Iterator[Callable[..., None]]:
    """Applies manifests of the folder under their policies; they are deleted when the module ends."""
    done: list[str] = []

    def apply(name: str, options: Sequence[str] = ()) -> None:
        text = lab.annotated((MANIFESTS / name).read_text(), *options)
        done.append(text)
        lab.delete(text)
        lab.apply(text)

    yield apply
    for text in done:
        lab.delete(text)


def changed(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A manifest whose pods' specs were changed after the policy was written."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        if document["kind"] == "Pod":
            change(document["spec"])
    return yaml.safe_dump_all(documents)


__all__ = ["NODE", "Lab", "changed", "pytest_runtest_makereport", "wait_for"]
