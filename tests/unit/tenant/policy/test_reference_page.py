"""The reference page is fresh, and leaves no code and no point out."""

from __future__ import annotations

import re
from pathlib import Path

from parma_api.policy.points import Point
from parma_tenant.reference_page import AGENT_CODES, WHEN, framework_codes, render

_CODE = re.compile(
    r'"((?:api|framework|fragment|policy|request|state|ttl|process|port)\.[a-z][a-z_]+)"'
)
_NO_CODES = {"policy.rego"}


def test_the_page_is_fresh(repository: Path) -> None:
    page = (repository / "docs" / "policy-reference.md").read_text()
    assert page == render(repository / "policy_bundles")


def test_every_point_is_described() -> None:
    assert set(WHEN) == set(Point)


def test_every_code_of_the_sources_is_described(repository: Path) -> None:
    known = AGENT_CODES.keys() | framework_codes(repository / "policy_bundles").keys()
    assert len(known) > 60
    sources = [
        *(repository / "api/parma_api/policy").glob("*.py"),
        *(
            path
            for path in (repository / "policy_bundles/framework").rglob("*.rego")
            if "_test" not in path.name
        ),
    ]
    found = {code for path in sources for code in _CODE.findall(path.read_text())}
    assert len(found) > 40
    assert found - known - _NO_CODES == set()
