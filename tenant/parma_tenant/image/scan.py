"""What a policy's author wants to know of a layer besides its hash, gathered while the hash is computed.

The bytes are pushed in as they come; this reader is lenient, since the strict one judges the same bytes: what it does
not understand ends the scan, never the conversion.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

from parma_tenant.image.errors import ImageError
from parma_tenant.image.tarindex import BLOCK, Extensions, Header, parse_header

ACCOUNT_FILES: Final = ("etc/passwd", "etc/group")
MAX_ACCOUNTS: Final = 1 << 20
_MAX_LISTED: Final = 2000
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_PLAIN_FOLDER: Final = (0o755, 0, 0)


@dataclass(slots=True)
class LayerFacts:
    """Facts of one layer."""

    accounts: dict[str, str | None] = field(default_factory=dict)
    """Content of ACCOUNT_FILES that the layer has; None for one that it takes away, or whose parent it hides."""
    unclear: list[str] = field(default_factory=list)
    """ACCOUNT_FILES that are something else than regular files of moderate size here."""
    implied: list[str] = field(default_factory=list)
    """Folders that the tar needs but does not list; in the VM they have their parent's owner and mode."""
    folders: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Listed folders that are not 0755 of root: mode, owner, group."""

    def to_json(self) -> dict[str, object]:
        """As the cache keeps it."""
        return {
            "accounts": self.accounts,
            "unclear": self.unclear,
            "implied": self.implied,
            "folders": {path: list(attributes) for path, attributes in self.folders.items()},
        }


class Scanner:
    """Takes a layer's uncompressed tar in pieces of any size."""

    def __init__(self) -> None:
        self.facts = LayerFacts()
        self._seen: set[str] = set()
        self._steps = self._run()
        self._wanted = next(self._steps)
        self._skip = 0
        self._kept = bytearray()
        self._ended = False

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view and not self._ended:
            if self._skip:
                passed = min(self._skip, len(view))
                self._skip -= passed
                view = view[passed:]
                continue
            missing = self._wanted - len(self._kept)
            self._kept += view[:missing]
            view = view[missing:]
            if len(self._kept) == self._wanted:
                self._advance()

    def _advance(self) -> None:
        piece = bytes(self._kept)
        self._kept.clear()
        try:
            self._wanted = self._steps.send(piece)
        except (StopIteration, ImageError):
            self._ended = True

    def _run(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next; sets `_skip` for what it does not."""
        extensions = Extensions()
        while True:
            block = yield BLOCK
            header = parse_header(block)
            if header is None:
                return
            if Extensions.has(header):
                data = (yield header.padded) if header.padded else b""
                extensions.add(header, data[: header.size])
                continue
            header = extensions.apply(header)
            parts = [part for part in header.name.split("/") if part not in ("", ".")]
            if self._is_account(header, parts):
                data = (yield header.padded) if header.padded else b""
                text = data[: header.size].decode("utf-8", "replace")
                self.facts.accounts["/".join(parts)] = text
            else:
                self._skip = header.padded
            if header.kind != b"g" and ".." not in parts:
                self._note(header, parts)

    def _is_account(self, header: Header, parts: list[str]) -> bool:
        path = "/".join(parts)
        return header.is_file and path in ACCOUNT_FILES and header.size <= MAX_ACCOUNTS

    def _note(self, header: Header, parts: list[str]) -> None:
        path, name = "/".join(parts), parts[-1] if parts else ""
        self._note_parents(parts)
        if name.startswith(_WHITEOUT):
            gone = parts[:-1] if name == _OPAQUE else [*parts[:-1], name.removeprefix(_WHITEOUT)]
            self._note_gone("/".join(gone), opaque=name == _OPAQUE)
            return
        if path in ACCOUNT_FILES and path not in self.facts.accounts:
            self.facts.unclear.append(path)
        if path == "etc" and header.kind != b"5":
            self.facts.unclear.extend(ACCOUNT_FILES)
        if header.kind == b"5":
            self._seen.add(path)
            attributes = (header.mode & 0o7777, header.uid, header.gid)
            if attributes != _PLAIN_FOLDER and len(self.facts.folders) < _MAX_LISTED:
                self.facts.folders[path] = attributes

    def _note_parents(self, parts: list[str]) -> None:
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            if parent not in self._seen:
                self._seen.add(parent)
                if len(self.facts.implied) < _MAX_LISTED:
                    self.facts.implied.append(parent)

    def _note_gone(self, path: str, *, opaque: bool) -> None:
        for file in ACCOUNT_FILES:
            beneath = path == "" or file.startswith(f"{path}/")
            if (file == path and not opaque) or (beneath and file not in self.facts.accounts):
                self.facts.accounts[file] = None


def facts_of_json(document: object) -> LayerFacts:
    """What `to_json` gave. Raises ValueError, TypeError, LookupError for anything else."""
    if not isinstance(document, dict):
        raise TypeError("no object")
    accounts = {
        str(key): None if text is None else str(text) for key, text in document["accounts"].items()
    }
    folders = {
        str(path): (int(mode), int(uid), int(gid))
        for path, (mode, uid, gid) in document["folders"].items()
    }
    return LayerFacts(
        accounts, list(map(str, document["unclear"])), list(map(str, document["implied"])), folders
    )
