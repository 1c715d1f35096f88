"""A group's transcript: is it whole, and is it the one whose head the report carries?

    file          JSON {"format": 1, "skipped": n, "base": hex, "entries": [text, ...], "head": hex}
    head 0        SHA-256("parma transcript 1\\n")
    head n        SHA-256(head n-1 || SHA-256(entry n)), over the entry's exact bytes (UTF-8 of its text)
    entry         JSON with sorted names and no white space: allowed, generation, input, point, reason_codes, sequence
    report_data   the head, 32 bytes, in its second half; or in its first half and zeros behind

`base` is the head before the first entry that is shown; `skipped` decisions came before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from parma_api.snp.report import SIZE
from parma_api.status import InvalidArgumentError
from parma_tenant.verify.checks import Check, Verification, failed, judged, passed, skipped

START: Final = hashlib.sha256(b"parma transcript 1\n").digest()
MAX_SIZE: Final = 64 << 20
_MEMBERS: Final = frozenset(("format", "skipped", "base", "entries", "head"))
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REPORT_DATA: Final = slice(0x50, 0x90)


class TranscriptError(InvalidArgumentError):
    """The file is no transcript."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision: `input` as it was shown, with secrets taken out."""

    sequence: int
    point: str
    allowed: bool
    reason_codes: tuple[str, ...]
    generation: int
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TranscriptFile:
    """What the file holds; entries as text, and read."""

    base: bytes
    skipped: int
    texts: tuple[str, ...]
    entries: tuple[Entry, ...]
    head: bytes


def link(head: bytes, entry: bytes) -> bytes:
    """The head after an entry."""
    return hashlib.sha256(head + hashlib.sha256(entry).digest()).digest()


def head_after(base: bytes, texts: Sequence[str]) -> bytes:
    """The head after all of them."""
    head = base
    for text in texts:
        head = link(head, text.encode())
    return head


def parse_transcript(data: bytes) -> TranscriptFile:
    """Raises TranscriptError."""
    if len(data) > MAX_SIZE:
        raise TranscriptError(f"a transcript has at most {MAX_SIZE} bytes")
    document = _json(data.decode(errors="replace"), "the transcript")
    if set(document) != _MEMBERS or document["format"] != 1:
        raise TranscriptError(f"a transcript has the members {', '.join(sorted(_MEMBERS))}")
    skipped_before, texts = document["skipped"], document["entries"]
    if type(skipped_before) is not int or skipped_before < 0:
        raise TranscriptError("`skipped` is no count")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TranscriptError("`entries` is no list of texts")
    entries = tuple(_entry(text, skipped_before + n) for n, text in enumerate(texts))
    base, head = _digest(document["base"]), _digest(document["head"])
    return TranscriptFile(base, skipped_before, tuple(texts), entries, head)


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise TranscriptError("`base` and `head` are 64 hexadecimal digits")
    return bytes.fromhex(value)


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"{what} is no JSON") from error
    if not isinstance(document, dict):
        raise TranscriptError(f"{what} is no JSON object")
    return document


def _entry(text: str, sequence: int) -> Entry:
    document = _json(text, f"entry {sequence}")
    again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if again != text or again != again.encode(errors="replace").decode():
        raise TranscriptError(f"entry {sequence} is not in its canonical form")
    point, allowed, codes = (document.get(n) for n in ("point", "allowed", "reason_codes"))
    generation, shown = document.get("generation"), document.get("input")
    if (
        type(document.get("sequence")) is not int
        or document["sequence"] != sequence
        or not isinstance(point, str)
        or not isinstance(allowed, bool)
        or type(generation) is not int
        or not isinstance(shown, dict)
        or not isinstance(codes, list)
        or not all(isinstance(code, str) for code in codes)
    ):
        raise TranscriptError(f"entry {sequence} has another number or form")
    return Entry(sequence, point, allowed, tuple(codes), generation, shown)


def check_chain(transcript: TranscriptFile) -> Check:
    """`transcript.chain`: the entries lead from base to head, and nothing skipped means that the base is the start."""
    name, got = "transcript.chain", head_after(transcript.base, transcript.texts)
    if transcript.skipped == 0 and transcript.base != START:
        return failed(name, "no decision is skipped, and the base is not the start of a transcript")
    if got != transcript.head:
        reason = "the entries do not lead to the head: one was changed, added or left out"
        return failed(name, reason, expected=transcript.head.hex(), got=got.hex())
    count = f"{len(transcript.texts)} decisions"
    if transcript.skipped:
        count += f"; {transcript.skipped} earlier ones are bound by the head and not shown"
    return passed(name, expected=transcript.head.hex(), got=got.hex(), reason=count)


def check_bound(transcript: TranscriptFile, report_data: bytes) -> Check:
    """`transcript.bound`: the report carries the head."""
    head = transcript.head
    return judged(
        "transcript.bound",
        expected=head.hex(),
        got=report_data.hex(),
        holds=report_data[32:] == head or report_data == head + bytes(32),
        reason="report_data does not hold the transcript's head",
    )


def with_transcript(verification: Verification, report: bytes, data: bytes) -> Verification:
    """`verification` with the checks of the transcript added."""
    if len(report) != SIZE:
        return verification
    try:
        transcript = parse_transcript(data)
    except TranscriptError as error:
        checks = (
            failed("transcript.chain", error.message),
            skipped("transcript.bound", "not made: the transcript cannot be read"),
        )
    else:
        bound = check_bound(transcript, report[_REPORT_DATA])
        checks = (check_chain(transcript), bound)
    return replace(verification, checks=verification.checks + checks)
