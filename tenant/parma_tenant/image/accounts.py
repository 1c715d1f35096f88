"""Numbers of users and groups, from the /etc/passwd and /etc/group of an image's layers, as containerd finds them.

Source: containerd pkg/oci/spec_opts.go (WithUser, WithAdditionalGIDs) and internal/cri/opts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parma_tenant.image.errors import ImageError, shown
from parma_tenant.image.scan import LayerFacts

MAX_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class Account:
    """A line of passwd (`group`: its fourth field) or of group (`members`: its own)."""

    name: str
    number: int
    group: int = 0
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """An image's users and groups; None where the layers do not say it plainly (a link, a huge file)."""

    users: tuple[Account, ...] | None
    groups: tuple[Account, ...] | None


@dataclass(frozen=True, slots=True)
class Who:
    """A process's user and all groups that it may have, the primary one first."""

    user: int
    groups: tuple[int, ...]


def accounts_of(layers: Sequence[LayerFacts]) -> Accounts:
    """`layers` base first; the topmost layer that says something about a file counts."""
    texts = [_top(layers, path) for path in ("etc/passwd", "etc/group")]
    users = None if texts[0] is None else tuple(_passwd(texts[0]))
    groups = None if texts[1] is None else tuple(_group(texts[1]))
    return Accounts(users, groups)


def _top(layers: Sequence[LayerFacts], path: str) -> str | None:
    for facts in reversed(layers):
        if path in facts.unclear:
            return None
        if path in facts.accounts:
            return facts.accounts[path] or ""
    return ""


def _number(text: str) -> int | None:
    plain = text.isascii() and text.isdigit() and len(text) <= 10
    return int(text) if plain and int(text) <= MAX_ID else None


def _passwd(text: str) -> list[Account]:
    rows = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        numbers = [_number(field) for field in fields[2:4]]
        if len(numbers) == 2 and fields[0] and numbers[0] is not None and numbers[1] is not None:
            rows.append(Account(fields[0], numbers[0], numbers[1]))
    return rows


def _group(text: str) -> list[Account]:
    rows = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        number = _number(fields[2]) if len(fields) > 2 else None
        if fields[0] and number is not None:
            members = tuple(name for name in "".join(fields[3:4]).split(",") if name)
            rows.append(Account(fields[0], number, members=members))
    return rows


def resolve(text: str, accounts: Accounts, image: str) -> Who | None:
    """Who `user[:group]` is; an empty text is root. None where the layers do not say it plainly. Raises ImageError."""
    name, colon, group = (text or "0").partition(":")
    if accounts.users is None or accounts.groups is None:
        return None
    account = _find(accounts.users, name)
    user = account.number if account is not None else _number(name)
    if user is None:
        raise ImageError(f"{image}: user {shown(name)} is not in the image's /etc/passwd")
    primary = account.group if account is not None else 0
    if colon:
        entry = _find(accounts.groups, group)
        number = entry.number if entry is not None else _number(group)
        if number is None:
            raise ImageError(f"{image}: group {shown(group)} is not in the image's /etc/group")
        primary = number
    return Who(user, (primary, *_memberships(accounts.groups, account)))


def _find(rows: Sequence[Account], text: str) -> Account | None:
    by_name = next((row for row in rows if row.name == text), None)
    number = _number(text)
    if by_name is not None or number is None:
        return by_name
    return next((row for row in rows if row.number == number), None)


def _memberships(groups: Sequence[Account], account: Account | None) -> list[int]:
    """Groups that list the user, but for the one of its own name."""
    if account is None:
        return []
    return [
        row.number for row in groups if account.name in row.members and row.name != account.name
    ]
