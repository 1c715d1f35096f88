"""What all tests share: the cache, the programs under test, and the rule that nothing is skipped unseen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.demo.daemon import PrivateContainerd

ROOT = Path(__file__).resolve().parent.parent
ALLOWED_SKIPS = (
    "../shared is not here",
    "needs SNP hardware",
)
"""The only reasons for a skip: anything else fails the run."""

MAX_LOG = 12_000
"""Characters."""

_skipped: list[str] = []


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and so would every program that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    """The cache outside the tree: OPA, crictl, UVM images."""
    return Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED_SKIPS):
            _skipped.append(f"{item.nodeid}: {reason}")
    if report.failed:
        report.sections += _daemon_logs(item)
    return report


def _daemon_logs(item: pytest.Item) -> list[tuple[str, str]]:
    """The ends of what the private containerds of a failed test and their shims wrote."""
    daemons = [
        x for x in getattr(item, "funcargs", {}).values() if isinstance(x, PrivateContainerd)
    ]
    paths = [
        path for daemon in daemons for path in (daemon.log, *daemon.folder.glob("run/**/shim.err"))
    ]
    texts = [(path.name, path.read_text(errors="replace")) for path in paths if path.is_file()]
    return [(name, text[-MAX_LOG:]) for name, text in texts if text]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        terminalreporter.section("unexpected skips: these fail the run")
        for line in _skipped:
            terminalreporter.write_line(line)
