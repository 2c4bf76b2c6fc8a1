"""Digests of the source code that decides a run's scores or its search.

This package's modules are listed below, by folder. Of a user's function they are the module that defines it
and all that this module imports from its own folder, directly or not. Nothing is executed to find them.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from fitness.functions import load_object, source_digest

# A change here may change the score of a recipe.
SCORE_CODE: Final = (
    *("operators/recipe", "operators/merge", "operators/build", "operators/tensors"),
    *("fitness", "cluster/host", "cluster/founders", "evo/search/rungs.py"),
)
# A change here may change which recipes are proposed, kept and chosen.
SEARCH_CODE: Final = ("operators/variation", "evo/algorithms", "evo/search", "evo/final")

_OWN = ("operators", "fitness", "cluster", "evo")
_ROOT = Path(__file__).parents[2]


def code_digests(folders: Collection[str]) -> dict[str, str]:
    """Return a digest of the source files in each folder (or module) of this package, by its name."""
    return {name: _digest(_sources(_ROOT / name)) for name in folders}


def user_code_digests(functions: Collection[str]) -> dict[str, str]:
    """Return a digest of each module that ``functions`` ("package.module:name") depend on, by its name.

    A module outside the folder of the function's top-level package counts as a library, and so does all of
    an installed package but the package itself. What has no file, as a notebook's ``__main__``, counts
    by the text of the function alone.
    """
    found: dict[str, Path] = {}
    typed: dict[str, str] = {}
    for function in functions:
        name = function.partition(":")[0]
        top = name.partition(".")[0]
        start = _top_level(top)
        if start is None:
            if name == "__main__":
                typed[function] = source_digest(load_object(function))
            continue
        root = start.parent.parent if start.name == "__init__.py" else start.parent
        installed = any(root == Path(p) for p in sysconfig.get_paths().values())
        _collect(name, root, top if installed else "", found)
    return typed | {name: _digest([path]) for name, path in sorted(found.items())}


def _sources(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _digest(paths: Collection[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        name = path.name if len(paths) == 1 else path.relative_to(_ROOT).as_posix()
        found.update(name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _top_level(name: str) -> Path | None:
    """Return the file of a top-level module."""
    if name == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        return Path(file).resolve() if file and Path(file).is_file() else None
    spec = PathFinder.find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve()


def _collect(name: str, root: Path, package: str, found: dict[str, Path]) -> None:
    """Add the module ``name`` and what it imports from ``root`` (of ``package`` alone, if given)."""
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module.partition(".")[0] in _OWN or (package and module.split(".")[0] != package):
            continue
        for part in _with_parents(module):
            path = _top_level(part) if part == "__main__" else _file(root, part)
            if path is None or part in found:
                continue
            found[part] = path
            waiting += _imports(path, part)


def _with_parents(module: str) -> Iterator[str]:
    """Yield "a", "a.b" and "a.b.c" of "a.b.c": importing a module runs its packages first."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _file(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    places = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((p for p in places if p.is_file()), None)


def _imports(path: Path, module: str) -> Iterator[str]:
    """Yield the names of modules that a file may import; a name imported from one may be a module too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # the file is hashed as it is; importing it says what is wrong
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            if base:
                yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)
