"""ARCHITECTURE.md names every folder and module of the four packages, and nothing that is not there."""

import re
from pathlib import Path

import pytest
from places import ROOT

PAGE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("operators", "fitness", "cluster", "evo")


def modules_and_folders(folder: Path) -> set[str]:
    """Modules by their stem, folders that are packages with a slash at the end."""
    modules = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("__")}
    return modules | {f"{p.parent.name}/" for p in folder.glob("*/__init__.py")}


def documented(package: str) -> dict[str, set[str]]:
    """The rows of a package's table: what it says is in each entry, by the entry's path."""
    section = re.search(rf"^## `{package}/`\n(.*?)(?=^## )", PAGE.read_text(), re.M | re.S)
    assert section is not None, f"ARCHITECTURE.md has no section {package}/"
    rows = re.findall(r"^\| `([\w./]+)` \|.*\|(.*)\|$", section[1], re.M)
    return {entry: set(re.findall(r"`([\w/]+)`", inside)) for entry, inside in rows}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_and_module_is_named(package):
    root = ROOT / package
    folders = {p.parent for p in root.rglob("__init__.py")} - {root}
    at_root = {f"{name}.py" for name in modules_and_folders(root) if not name.endswith("/")}
    table = documented(package)
    assert set(table) == at_root | {f"{p.relative_to(root).as_posix()}/" for p in folders}
    for folder in folders:
        entry = f"{folder.relative_to(root).as_posix()}/"
        assert table[entry] == modules_and_folders(folder), f"{package}/{entry}"


def test_the_suites_and_tables_to_extend_are_there():
    """The paths that "To add something" sends its reader to."""
    section = PAGE.read_text().split("## To add something")[1]
    for path in re.findall(r"`((?:operators|evo|fitness|tests)/[\w./]+)`", section):
        assert (ROOT / path).exists(), path
