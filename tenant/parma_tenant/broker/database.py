"""Where a broker keeps its rows: SQLite in a file, or PostgreSQL by a URL, so that several brokers can share it.

Every change is one transaction, on disk before it is answered: a broker that is killed has it whole or not at all.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from parma_api.status import FailedPreconditionError, InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    import psycopg

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Sequence[str | int | bytes]

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS parma_signer (id INTEGER PRIMARY KEY CHECK (id = 1), sealed {bytes} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS parma_keys (sequence {serial}, name TEXT NOT NULL, version TEXT NOT NULL,"
    " about TEXT NOT NULL, sealed {bytes} NOT NULL, UNIQUE (name, version))",
)


class Database(Protocol):
    """Statements have `?` for values. Each call is one transaction."""

    def read(self, statement: str, values: Values = ()) -> list[Row]:
        """The rows. Raises UnavailableError."""
        ...

    def write(self, statement: str, values: Values = ()) -> int:
        """How many rows changed, once that is on disk. Raises UnavailableError."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def open_database(where: str | Path) -> Database:
    """A file, or `postgresql://...`, with its tables.

    Raises InvalidArgumentError, FailedPreconditionError, UnavailableError.
    """
    text = str(where)
    if text.startswith(("postgresql://", "postgres://")):
        return Postgres(text)
    if "://" in text:
        raise InvalidArgumentError("a database is a file or a URL that begins with postgresql://")
    return Sqlite(Path(text))


class Sqlite:
    """See Database. Readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise FailedPreconditionError(f"{path} cannot be made: {error}") from error
        try:
            self._prepare()
        except UnavailableError as error:
            self._connection.close()
            raise FailedPreconditionError(f"{path} is no database: {error.message}") from None

    def _prepare(self) -> None:
        with self._transaction() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
        for table in _TABLES:
            serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
            self.write(table.format(bytes="BLOB", serial=serial))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock:
            try:
                with self._connection:
                    yield self._connection.cursor()
            except sqlite3.Error as error:
                raise UnavailableError(f"the database failed: {type(error).__name__}") from error

    def read(self, statement: str, values: Values = ()) -> list[Row]:
        """See Database."""
        with self._transaction() as cursor:
            return cursor.execute(statement, tuple(values)).fetchall()

    def write(self, statement: str, values: Values = ()) -> int:
        """See Database."""
        with self._transaction() as cursor:
            return cursor.execute(statement, tuple(values)).rowcount

    def close(self) -> None:
        """See Database."""
        with self._lock:
            self._connection.close()


class Postgres:
    """See Database. One connection, made anew when it was lost."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise FailedPreconditionError(
                f"PostgreSQL needs the package psycopg: {error}"
            ) from error
        self._psycopg = psycopg
        self._url = url
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None
        with self._transaction() as cursor:
            # Two brokers that start together make the tables once: the lock ends with the transaction.
            cursor.execute("SELECT pg_advisory_xact_lock(20545)")
            for table in _TABLES:
                cursor.execute(table.format(bytes="BYTEA", serial="BIGSERIAL PRIMARY KEY").encode())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock:
            try:
                connection = self._live()
                with connection.transaction(), connection.cursor() as cursor:
                    yield cursor
            except self._psycopg.Error as error:
                self._drop()
                # The driver's text may quote values.
                raise UnavailableError(f"the database failed: {type(error).__name__}") from None

    def _live(self) -> psycopg.Connection[Row]:
        """The connection, if the server still knows it; else a new one. Nothing is ever tried twice."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
                self._connection.rollback()
            except self._psycopg.Error:
                self._drop()
        if self._connection is None:
            self._connection = self._psycopg.connect(self._url, connect_timeout=10)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(self._psycopg.Error):
                self._connection.close()
        self._connection = None

    def read(self, statement: str, values: Values = ()) -> list[Row]:
        """See Database."""
        with self._transaction() as cursor:
            cursor.execute(statement.replace("?", "%s"), tuple(values))
            found: list[Row] = cursor.fetchall()
            return found

    def write(self, statement: str, values: Values = ()) -> int:
        """See Database."""
        with self._transaction() as cursor:
            cursor.execute(statement.replace("?", "%s"), tuple(values))
            return int(cursor.rowcount)

    def close(self) -> None:
        """See Database."""
        with self._lock:
            self._drop()
