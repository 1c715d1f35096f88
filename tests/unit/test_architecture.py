"""The trust map, enforced: who may import whom, and what the guest's image may hold."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("parma_api", "parma_shim", "parma_guest", "parma_tenant")


def sources(repository: Path) -> list[Path]:
    found = [
        path
        for folder in ("api", "shim", "guest", "tenant")
        for path in (repository / folder).rglob("*.py")
        if "gen" not in path.parts
    ]
    assert len(found) > 100
    return found


def module_path(repository: Path, module: str) -> Path:
    folder = repository / module.split(".")[0].removeprefix("parma_")
    path = folder / module.replace(".", "/")
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def test_import_contracts_hold(repository: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_each_contract_names_modules_that_exist(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = [
        name
        for contract in settings["contracts"]
        for key in ("modules", "source_modules")
        for name in contract.get(key, ())
    ]
    assert len(names) > 10
    missing = [name for name in names if not module_path(repository, name).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "planted", ["import parma_guest.oci.build", "from parma_tenant import cli"]
)
def test_a_planted_breach_is_found(planted: str) -> None:
    assert foreign_imports("parma_shim", ast.parse(planted)) != []


def test_no_package_imports_a_sibling(repository: Path) -> None:
    breaches = [
        f"{path}: {name}"
        for path in sources(repository)
        for name in foreign_imports(owner(path), ast.parse(path.read_text()))
    ]
    assert breaches == []


def owner(path: Path) -> str:
    return next((part for part in path.parts if part in PACKAGES), "")


def foreign_imports(package: str, tree: ast.AST) -> list[str]:
    """Imports, nested ones too, of a Parma package that `package` may not see."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    roots = {name: name.split(".")[0] for name in names}
    allowed = {package, "parma_api"} if package else set(PACKAGES)
    return [name for name, root in roots.items() if root in PACKAGES and root not in allowed]


def test_modules_stay_readable(repository: Path) -> None:
    long = {
        str(path): n
        for path in sources(repository)
        if (n := len(path.read_text().splitlines())) > 500
    }
    assert long == {}


def test_no_grab_bag_modules(repository: Path) -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [str(path) for path in sources(repository) if path.stem in banned] == []
