"""An installation on a node and its way back, in a folder that stands for the node's root."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from parma_api.status import FailedPreconditionError
from parma_shim.node import handler, versions
from parma_shim.node.cluster import ClusterApi, Wish
from parma_shim.node.command import uninstall
from parma_shim.node.host import NodeHost

CONFIG = 'version = 2\n\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "pause"\n'
OLD, NEW = "0" * 16, "1" * 16


@dataclass
class Systemd:
    """Counts restarts; may refuse them."""

    version: str = "containerd github.com/containerd/containerd 1.6.20"
    restarts: int = 0
    failing: list[bool] = field(default_factory=list)

    def __call__(self, _root: Path, words: Sequence[str]) -> str:
        if "--version" in words:
            return self.version
        self.restarts += 1
        if self.failing and self.failing.pop(0):
            raise FailedPreconditionError("systemctl: no")
        return ""


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def host(tmp_path: Path, systemd: Systemd) -> NodeHost:
    root = tmp_path / "node"
    (root / "etc/containerd").mkdir(parents=True)
    (root / "etc/containerd/config.toml").write_text(CONFIG)
    (root / "proc").mkdir()
    return NodeHost(root, inside=systemd)


def payload(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "image" / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / versions.SHIM).write_text(name)
    return folder


def run_pod(host: NodeHost, version: str) -> Path:
    """A shim's process of that version; the folder that stands for it."""
    process = host.path(f"/proc/{len(list(host.path('/proc').iterdir())) + 100}")
    process.mkdir()
    words = [f"{versions.VERSIONS}/{version}/python/bin/python3.11", "-IS", versions.LINK, "serve"]
    (process / "cmdline").write_bytes("\0".join(words).encode())
    return process


def end_pod(process: Path) -> None:
    (process / "cmdline").unlink()
    process.rmdir()


def names(host: NodeHost) -> list[str]:
    return sorted(path.name for path in host.path(versions.VERSIONS).iterdir())


def test_new_pods_get_the_newest_version(host: NodeHost, tmp_path: Path) -> None:
    for name in (OLD, NEW):
        versions.put(host, payload(tmp_path, name))
        assert versions.current(host) == name
    assert names(host) == [OLD, NEW]


def test_putting_twice_is_putting_once(host: NodeHost, tmp_path: Path) -> None:
    source = payload(tmp_path, NEW)
    versions.put(host, source)
    marker = host.path(f"{versions.VERSIONS}/{NEW}/marker")
    marker.touch()
    versions.put(host, source)
    assert marker.exists()


def test_an_old_version_stays_as_long_as_its_pods(host: NodeHost, tmp_path: Path) -> None:
    versions.put(host, payload(tmp_path, OLD))
    pod = run_pod(host, OLD)
    versions.put(host, payload(tmp_path, NEW))
    assert versions.collect(host) == ()
    assert names(host) == [OLD, NEW]
    end_pod(pod)
    assert versions.collect(host) == (OLD,)
    assert names(host) == [NEW]


def test_what_is_not_a_version_is_left_alone(host: NodeHost, tmp_path: Path) -> None:
    versions.put(host, payload(tmp_path, NEW))
    host.path(f"{versions.VERSIONS}/somebody").mkdir()
    assert versions.collect(host) == ()


def test_nothing_is_left(host: NodeHost, tmp_path: Path) -> None:
    versions.put(host, payload(tmp_path, NEW))
    for name in versions.STATE:
        host.path(name).mkdir(parents=True)
    assert versions.take_away(host) == frozenset()
    assert not host.path("/opt/parma").exists()
    assert not host.path(versions.LINK).is_symlink()
    assert not any(host.path(name).exists() for name in versions.STATE)


def test_running_pods_keep_what_they_need(host: NodeHost, tmp_path: Path) -> None:
    versions.put(host, payload(tmp_path, NEW))
    run_pod(host, NEW)
    assert versions.take_away(host) == {NEW}
    assert host.path(versions.LINK).is_symlink()
    assert names(host) == [NEW]


def test_containerd_is_restarted_only_for_a_change(host: NodeHost, systemd: Systemd) -> None:
    assert handler.add(host)
    assert not handler.add(host)
    assert systemd.restarts == 1
    assert "runtimes.parma]" in host.path(host.containerd_config).read_text()


def test_the_handler_goes_as_it_came(host: NodeHost, systemd: Systemd) -> None:
    handler.add(host)
    assert handler.remove(host)
    assert not handler.remove(host)
    assert systemd.restarts == 2
    folder = host.path("/etc/containerd")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"config.toml": CONFIG}


def test_a_file_that_was_made_for_the_handler_is_removed(host: NodeHost, systemd: Systemd) -> None:
    host.path(host.containerd_config).unlink()
    systemd.version = "containerd github.com/containerd/containerd/v2 v2.1.4"
    handler.add(host)
    assert host.path(host.containerd_config).read_text().startswith("version = 3")
    handler.remove(host)
    assert list(host.path("/etc/containerd").iterdir()) == []


def test_a_containerd_that_does_not_start_gets_its_file_back(
    host: NodeHost, systemd: Systemd
) -> None:
    systemd.failing = [True]
    with pytest.raises(FailedPreconditionError, match="the old file is back: systemctl: no"):
        handler.add(host)
    assert host.path(host.containerd_config).read_text() == CONFIG
    assert systemd.restarts == 2


DAEMONSET = {"spec": {"template": {"spec": {"nodeSelector": {"io.parma/install": "true"}}}}}
NODE = {"metadata": {"labels": {"io.parma/install": "true", "io.parma/ready": "true"}}}


class Api:
    """An API server with two objects, and what was asked of it."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.patches: list[object] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer()

            def do_PATCH(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.patches.append(json.loads(self.rfile.read(length)))
                self.answer()

            def answer(self) -> None:
                kind = "daemonset" if "daemonsets" in self.path else "node"
                status, document = outer.answers[kind]
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    made.answers = {"daemonset": (200, DAEMONSET), "node": (200, NODE)}
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def client(api: Api, tmp_path: Path) -> ClusterApi:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    return ClusterApi(
        f"http://127.0.0.1:{api.server.server_address[1]}", "n", "ns", "parma-node", account
    )


def test_the_node_is_marked_and_unmarked(api: Api, client: ClusterApi) -> None:
    client.mark_ready(ready=True)
    client.mark_ready(ready=False)
    assert api.patches == [
        {"metadata": {"labels": {"io.parma/ready": value}}} for value in ("true", None)
    ]


@pytest.mark.parametrize(
    ("what", "answer", "wish"),
    [
        ("daemonset", (200, DAEMONSET), Wish.STAY),
        ("daemonset", (200, {**DAEMONSET, "metadata": {"deletionTimestamp": "now"}}), Wish.LEAVE),
        ("daemonset", (404, {}), Wish.LEAVE),
        ("daemonset", (401, {}), Wish.LEAVE),
        ("daemonset", (503, {}), Wish.STAY),
        ("node", (200, {"metadata": {"labels": {}}}), Wish.LEAVE),
    ],
)
def test_when_to_leave(
    api: Api, client: ClusterApi, what: str, answer: tuple[int, object], wish: Wish
) -> None:
    api.answers[what] = answer
    assert client.wish() is wish


def test_an_api_that_is_away_is_no_reason_to_leave(client: ClusterApi) -> None:
    away = ClusterApi("http://127.0.0.1:1", "n", "ns", "parma-node", client.account)
    assert away.wish() is Wish.STAY


def test_uninstall_undoes_all_of_it(host: NodeHost, client: ClusterApi, tmp_path: Path) -> None:
    versions.put(host, payload(tmp_path, NEW))
    handler.add(host)
    assert uninstall(host, client)
    assert host.path(host.containerd_config).read_text() == CONFIG
    assert not host.path("/opt/parma").exists()


def test_uninstall_goes_on_without_rights(
    api: Api, host: NodeHost, client: ClusterApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["node"] = (401, {})
    versions.put(host, payload(tmp_path, NEW))
    handler.add(host)
    assert not uninstall(host, client)
    assert "kubectl label node n io.parma/ready-" in capsys.readouterr().err
    assert not host.path("/opt/parma").exists()


def test_uninstall_waits_for_pods_and_leaves_them(
    host: NodeHost, client: ClusterApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions.put(host, payload(tmp_path, NEW))
    run_pod(host, NEW)
    assert not uninstall(host, client, deadline=0)
    assert f"version {NEW} stays" in capsys.readouterr().err
    assert names(host) == [NEW]
