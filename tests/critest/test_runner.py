"""The runner around the suite: what it reads from reports, what counts as a difference, what the registry serves."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from parma_shim.demo.ocilayout import Entry, Image, layer_tar, write_archive

from . import document, registry
from .reasons import FILE, find, load
from .results import Column, Results
from .suite import Outcome, State, SuiteError, _pattern, read_report

NAME = "[k8s.io] Group of things (a) should do it"
OTHER = "[k8s.io] Group of things (a) should do it twice"


def report(path: Path, *rows: dict[str, Any]) -> Path:
    common = {"LeafNodeType": "It", "ContainerHierarchyTexts": ["[k8s.io] Group", "of things (a)"]}
    specs = [
        {**common, "LeafNodeText": "should do it", "RunTime": 2_000_000_000, **r} for r in rows
    ]
    setup = {"LeafNodeType": "BeforeSuite", "ContainerHierarchyTexts": None, "LeafNodeText": ""}
    path.write_text(json.dumps([{"SpecReports": [setup, *specs]}]))
    return path


@pytest.mark.parametrize(
    ("row", "state", "message"),
    [
        ({"State": "passed"}, State.PASS, ""),
        ({"State": "failed", "Failure": {"Message": "a\n  b"}}, State.FAIL, "a b"),
        ({"State": "panicked"}, State.FAIL, ""),
        ({"State": "timedout"}, State.FAIL, ""),
        ({"State": "skipped", "Failure": {"Message": "no feature"}}, State.SKIP, "no feature"),
    ],
)
def test_states(tmp_path: Path, row: dict[str, Any], state: State, message: str) -> None:
    outcomes = read_report(report(tmp_path / "r.json", row), [NAME], "")
    assert outcomes == (Outcome(NAME, state, message, 2.0),)


def test_a_spec_that_was_not_run_is_no_skip(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="chosen but not run"):
        read_report(report(tmp_path / "r.json", {"State": "skipped"}), [NAME], "")
    with pytest.raises(SuiteError, match="has no"):
        read_report(report(tmp_path / "r.json", {"State": "passed"}), [OTHER], "the end")
    with pytest.raises(SuiteError, match="the end"):
        read_report(tmp_path / "none.json", [NAME], "the end")


def test_a_focus_matches_one_spec() -> None:
    assert re.search(_pattern(NAME), f"CRI validation {NAME}")
    assert not re.search(_pattern(NAME), f"CRI validation {OTHER}")


REASONS = """
[[reason]]
specs = 'do it$'
message = 'refused'
versions = ["1.6"]
text = "because"
"""


def written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str = "refused", **states: State
) -> tuple[document.Written, str]:
    file = tmp_path / "conformance.md"
    monkeypatch.setattr(document, "FILE", file)
    monkeypatch.setattr(document, "_runc", lambda: "runc 1")
    (tmp_path / "reasons.toml").write_text(REASONS)
    results = Results(tmp_path / "results")
    for column in document.COLUMNS:
        name = f"{column.handler}_{column.version.replace('.', '_')}"
        state = states.get(name, State.PASS)
        results.store(column, column.version, [Outcome(NAME, state, message, 1)])
    return document.write(results, (NAME,), load(tmp_path / "reasons.toml")), file.read_text()


def test_equal_columns_need_no_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, text = written(monkeypatch, tmp_path)
    assert found.complete
    assert not found.unexplained
    assert found.lines[-1] == "not needed: do it$"
    assert "should do it | pass | pass | pass | pass | pass | pass |  |" in text


def test_a_difference_has_a_reason_or_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, text = written(monkeypatch, tmp_path, parma_1_6=State.FAIL)
    assert not found.unexplained
    assert "pass | FAIL | pass | pass | pass | pass | because |" in text
    found, text = written(monkeypatch, tmp_path, "broken", parma_1_6=State.FAIL)
    assert found.unexplained == (NAME,)
    found, text = written(monkeypatch, tmp_path, parma_1_6=State.FAIL, parma_1_7=State.SKIP)
    assert found.unexplained == (NAME,)
    assert f"because; {document.UNEXPLAINED} |" in text
    assert f"not explained: {NAME}" in found.lines


def test_a_second_attempt_is_shown() -> None:
    assert document._cell(Outcome(NAME, State.PASS, "", 1, attempts=2)) == "pass (2nd)"


def test_a_failure_of_both_needs_a_reason_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, _ = written(monkeypatch, tmp_path, parma_1_7=State.FAIL, runc_1_7=State.FAIL)
    assert found.unexplained == (NAME,)


def test_a_missing_column_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(document, "FILE", tmp_path / "c.md")
    results = Results(tmp_path / "results")
    results.store(Column("1.6", "runc"), "1.6.20", [Outcome(NAME, State.PASS, "", 1)])
    assert results.server(Column("1.6", "runc")) == "1.6.20"
    found = document.write(results, (NAME,), ())
    assert not found.complete
    assert "not complete" in found.lines[-1]


def test_the_reasons_are_well_formed() -> None:
    assert find(load(FILE), "no such spec", "1.6", []) is None
    for reason in load(FILE):
        assert reason.text.strip() == reason.text
        assert "|" not in reason.text


def test_reasons_have_known_keys_only(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        "[[reason]]\nspecs = 'a'\nmessage = ''\ntext = 'b'\nother = 1\n"
    )
    with pytest.raises(ValueError, match="keys are"):
        load(tmp_path / "r.toml")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    archive = tmp_path / "a.tar"
    layer = layer_tar([Entry("file", 0o644, b"content")])
    write_archive([Image("registry.k8s.io/one/two:3", (layer,))], archive)
    registry.Handler.store = registry.Store(archive)
    server = ThreadingHTTPServer(("127.0.0.1", 0), registry.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    yield connection
    connection.close()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(connection: http.client.HTTPConnection, path: str, verb: str = "GET") -> tuple[int, bytes]:
    connection.request(verb, path)
    response = connection.getresponse()
    return response.status, response.read()


def test_the_registry_serves_an_image(served: http.client.HTTPConnection) -> None:
    status, body = ask(served, "/v2/one/two/manifests/3?ns=registry.k8s.io")
    assert status == 200
    layer = json.loads(body)["layers"][0]
    status, blob = ask(served, f"/v2/one/two/blobs/{layer['digest']}?ns=registry.k8s.io")
    assert (status, len(blob)) == (200, layer["size"])
    assert ask(served, "/v2/one/two/manifests/3?ns=registry.k8s.io", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/one/two/manifests/3?ns=gcr.io",
        "/v2/one/two/manifests/4?ns=registry.k8s.io",
        f"/v2/one/two/blobs/sha256:{'0' * 64}?ns=registry.k8s.io",
        "/v1/search",
    ],
)
def test_the_registry_has_nothing_else(served: http.client.HTTPConnection, path: str) -> None:
    assert ask(served, path)[0] == 404


def test_help_names_the_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.critest", "--help"],
        cwd=FILE.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Exit 0" in done.stdout
