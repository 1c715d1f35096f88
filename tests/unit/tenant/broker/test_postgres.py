"""Brokers that share a PostgreSQL server: Debian's, in a private cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import DataLossError, UnavailableError
from parma_tenant.broker.database import Postgres
from parma_tenant.broker.run import running
from parma_tenant.broker.vault import Master, Vault
from tests.unit.tenant.broker.conftest import client_of, settings
from tests.unit.tenant.broker.kit import CANARY, encodings_of
from tests.unit.tenant.broker.test_broker import key_in
from tests.unit.tenant.broker.test_process import ISSUER, put_until_killed, started
from tests.unit.tenant.stub import StubPsp

PROGRAMS = Path("/usr/lib/postgresql")


def as_owner(folder: Path, *command: str | Path) -> None:
    """PostgreSQL refuses to run as root: as the package's own user, then."""
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    words = [*(user if os.geteuid() == 0 else []), *map(str, command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Server:
    """The cluster in a folder of its own; it listens on a Unix socket there only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self._bin,) = sorted(PROGRAMS.glob("*/bin"))[-1:]
        self.url = f"postgresql://parma@/postgres?host={folder}"
        quick = ("-A", "trust", "-U", "parma", "--no-sync", "--no-instructions")
        as_owner(folder, self._bin / "initdb", "-D", folder / "data", *quick)

    def start(self) -> None:
        options = (
            f"-k {self.folder} -c listen_addresses= -c max_connections=20 -c shared_buffers=16MB"
        )
        log = self.folder / "log"
        as_owner(self.folder, *self._ctl(), "-l", log, "-o", options, "-w", "start")

    def stop(self, mode: str) -> None:
        as_owner(self.folder, *self._ctl(), "-m", mode, "-w", "stop")

    def _ctl(self) -> tuple[str | Path, ...]:
        return self._bin / "pg_ctl", "-D", self.folder / "data"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="parma-pg-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        found = Server(folder)
        found.start()
        yield found
        with contextlib.suppress(AssertionError):
            found.stop("immediate")
    finally:
        shutil.rmtree(folder)


async def test_two_brokers_are_one_service(
    server: Server, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """A key imported at one is released by the other, for a token of the first, after the server died and came back."""
    issuer = "https://broker.example"
    first, second = (
        settings(tmp_path / "shared", psp, database=server.url, issuer=issuer) for _ in range(2)
    )
    async with running(first) as one, running(second) as two:
        left, right = await client_of(one), await client_of(two)
        async with left.session, right.session:
            await left.import_for("k", psp.host_data)
            token = await left.token(psp, group_key)
            _, answer = await right.release("k", token)
            assert key_in(answer, group_key) == CANARY

            server.stop("immediate")
            status, answer = await right.release("k", token)
            assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
            server.start()
            for client in (left, right):
                _, answer = await client.release("k", token)
                assert key_in(answer, group_key) == CANARY
    stored = b"".join(p.read_bytes() for p in (server.folder / "data").rglob("*") if p.is_file())
    assert b"parma_keys" in stored
    assert not any(encoded in stored for encoded in encodings_of(CANARY))


async def test_one_of_two_processes_is_killed(
    server: Server, psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """They start at the same time, on a state folder that neither has made; what the dead one confirmed lives on."""
    with contextlib.closing(Postgres(server.url)) as database:
        database.write("DELETE FROM parma_signer")
    options = ("--issuer", ISSUER, "--database", server.url)
    async with contextlib.AsyncExitStack() as stack:
        starts = (started(tmp_path / "shared", psp, *options) for _ in range(2))
        one, two = await asyncio.gather(*map(stack.enter_async_context, starts))
        sent = await put_until_killed(one, psp, 5, "pg-")
        token = await two.client.token(psp, group_key)
        for name, secret in sent.all.items():
            status, answer = await two.client.release(name, token)
            assert status == 200 or (status == 404 and name not in sent.confirmed), answer
            assert status == 404 or key_in(answer, group_key) == secret


def test_another_master_key_opens_nothing(server: Server) -> None:
    with contextlib.closing(Postgres(server.url)) as database:
        database.write("DELETE FROM parma_signer")
        Vault(database, Master(b"1" * 32)).signer(b"x")
        assert Vault(database, Master(b"1" * 32)).signer(b"y") == b"x"
        with pytest.raises(DataLossError):
            Vault(database, Master(b"2" * 32)).signer(b"y")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Postgres(f"postgresql://parma:canary-secret@/postgres?host={tmp_path}")
    assert "canary" not in caught.value.message
