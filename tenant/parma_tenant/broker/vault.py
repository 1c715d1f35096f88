"""Keys at rest: sealed by the broker's master key together with the policy that guards them.

A row's name, version, kind, attributes and policy are authenticated with the key (AES-256-GCM, as additional data): who
can write the database can lose keys, but cannot read one, nor put it under another policy or name.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from parma_api.status import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from parma_tenant.broker.database import Database
from parma_tenant.claims.encoding import canonical_json, read_object
from parma_tenant.release.grammar import ReleasePolicy, parse_policy
from parma_tenant.release.material import KeyKind, KeyMaterial

_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}")
_VERSION: Final = re.compile(r"[0-9a-f]{32}")
_MAX_ABOUT: Final = 256 * 1024
_MAX_VERSIONS: Final = 1000
_NONCE: Final = 12


class Master:
    """The key that seals rows; held in memory, kept in a file of its owner's."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, data: bytes, about: bytes) -> bytes:
        """Sealed, bound to `about`."""
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, data, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """The inverse. Raises DataLossError: another master key, or a row that was changed."""
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
        except (InvalidTag, ValueError):
            raise DataLossError(
                "a row cannot be opened: the master key is another one, or somebody changed the database"
            ) from None


def load_secret(path: Path) -> bytes:
    """32 bytes from a file of 64 hexadecimal digits, made with fresh ones (mode 0600) where there is none.

    The file is whole or not there, and of several that make it at once one wins. Raises FailedPreconditionError for a
    file that others can read, or that holds something else.
    """
    try:
        if not path.exists():
            _make_secret(path)
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be made: {error.strerror}") from error
    return _read_secret(path)


def _make_secret(path: Path) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_secret(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise FailedPreconditionError(f"{path} can be read by others: chmod 600 it")
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPreconditionError(f"{path} cannot be read: {type(error).__name__}") from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise FailedPreconditionError(f"{path} does not hold 64 hexadecimal digits")
    return bytes.fromhex(text)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One version of a key. `policy_text` is the policy as it was given; `attributes` and `key_ops` go to who gets
    it.
    """

    name: str
    version: str
    kind: KeyKind
    hsm: bool
    key_ops: tuple[str, ...]
    attributes: Mapping[str, Any]
    policy_text: str

    @property
    def policy(self) -> ReleasePolicy:
        """The policy, read. Raises ReleasePolicyError."""
        return parse_policy(self.policy_text.encode())

    def about(self) -> bytes:
        """What is authenticated with the key."""
        return canonical_json(
            {
                "name": self.name,
                "version": self.version,
                "kind": str(self.kind),
                "hsm": self.hsm,
                "key_ops": list(self.key_ops),
                "attributes": dict(self.attributes),
                "policy": self.policy_text,
            }
        )


def check_name(name: str) -> str:
    """A key's name as Key Vault allows it. Raises InvalidArgumentError."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError("a key's name has 1 to 127 letters, digits and hyphens")
    return name


def check_version(version: str) -> str:
    """Raises NotFoundError: nothing else can be a version."""
    if not _VERSION.fullmatch(version):
        raise NotFoundError("a key's version is 32 hexadecimal digits")
    return version


class Vault:
    """The keys. Blocking: call it in a thread."""

    def __init__(self, database: Database, master: Master) -> None:
        self._database = database
        self._master = master

    def put(self, key: StoredKey, material: KeyMaterial) -> None:
        """A new version, on disk when this returns. Raises ResourceExhaustedError, UnavailableError."""
        (count,) = self._database.read(
            "SELECT count(*) FROM parma_keys WHERE name = ?", (key.name,)
        )[0]
        if count >= _MAX_VERSIONS:
            raise ResourceExhaustedError(
                f"a key has at most {_MAX_VERSIONS} versions: delete it first"
            )
        about = key.about()
        self._database.write(
            "INSERT INTO parma_keys (name, version, about, sealed) VALUES (?, ?, ?, ?)",
            (key.name, key.version, about.decode(), self._master.seal(material.data, about)),
        )

    def get(self, name: str, version: str | None = None) -> tuple[StoredKey, KeyMaterial]:
        """That version, or the newest. Raises NotFoundError, DataLossError, UnavailableError."""
        check_name(name)
        statement, values = "SELECT about, sealed FROM parma_keys WHERE name = ?", [name]
        if version is not None:
            statement += " AND version = ?"
            values.append(check_version(version))
        rows = self._database.read(f"{statement} ORDER BY sequence DESC LIMIT 1", values)
        if not rows:
            raise NotFoundError(f"there is no key {name} of that version")
        about, sealed = rows[0]
        data = self._master.open(bytes(sealed), about.encode())
        key = _read_about(about.encode())
        if key.name != name or (version is not None and key.version != version):
            raise DataLossError("a row is under another name than the key in it")
        return key, KeyMaterial(key.kind, data)

    def delete(self, name: str) -> None:
        """All versions. Raises NotFoundError, UnavailableError."""
        if not self._database.write("DELETE FROM parma_keys WHERE name = ?", (check_name(name),)):
            raise NotFoundError(f"there is no key {name}")

    def signer(self, fresh: bytes) -> bytes:
        """The brokers' shared signing keys: those that are kept, else `fresh`, which are kept from now on."""
        about = b"parma broker signer 1"
        self._database.write(
            "INSERT INTO parma_signer (id, sealed) VALUES (1, ?) ON CONFLICT DO NOTHING",
            (self._master.seal(fresh, about),),
        )
        rows = self._database.read("SELECT sealed FROM parma_signer WHERE id = 1")
        return self._master.open(bytes(rows[0][0]), about)

    def has_signer(self) -> bool:
        """Whether signing keys are kept already."""
        return bool(self._database.read("SELECT id FROM parma_signer WHERE id = 1"))


def new_version() -> str:
    """A version's name."""
    return secrets.token_hex(16)


def _read_about(about: bytes) -> StoredKey:
    found = read_object(about, "a key's description", _MAX_ABOUT)
    return StoredKey(
        found["name"],
        found["version"],
        KeyKind(found["kind"]),
        found["hsm"],
        tuple(found["key_ops"]),
        found["attributes"],
        found["policy"],
    )
