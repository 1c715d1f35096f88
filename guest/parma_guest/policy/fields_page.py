"""docs/fields.md, made from the tables: `python -m parma_guest.policy.fields_page > docs/fields.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from parma_guest.policy.fields import OCI, Row
from parma_guest.policy.fields_rpc import ANSWERS, RPC

_HEAD = """\
# Every field that the host can fill, and what becomes of it

Made by `python -m parma_guest.policy.fields_page`; do not edit. The tables are data of `parma_guest.policy.fields`
and `fields_rpc`; the agent's parser reads the first, and tests compare both with the OCI schema and with the
protocol's descriptors.

* **judged**: a point of the policy sees the value.
* **constant**: the guest's own value, whatever the host says.
* **bounded**: the host's value within the guest's limits.
* **refused**: the request fails if the field is there and says something (`null`, `false`, `0`, `""`, `[]` and `{}` say
  nothing).

What has no row is refused.
"""


def render() -> str:
    """The page."""
    return "\n".join(
        (
            _HEAD,
            "## The OCI document of CreateContainer, and the process object of ExecProcess\n",
            _table(OCI.values()),
            "## Fields of the agent's calls\n",
            f"Fields of answers are constant: {ANSWERS}.\n",
            _table(RPC.values()),
        )
    )


def _table(rows: Iterable[Row]) -> str:
    lines = ["| field | kind | point, value, limit or reason |", "|---|---|---|"]
    lines += [f"| `{row.path}` | {row.kind} | {row.detail} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
