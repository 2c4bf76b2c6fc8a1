"""YAML with the line of every value, so that a mistake can be named where it stands."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml

from evo.errors import EvoError

Scalar: TypeAlias = float | bool | str | None
_DEPTH = 20  # of mappings and lists within each other; an alias may go in a circle


@dataclass(frozen=True, slots=True)
class YamlValue:
    """A value of a YAML file: scalar, list of nodes, or mapping of names to nodes."""

    value: "Scalar | tuple[YamlValue, ...] | Mapping[str, YamlValue]"
    path: Path
    line: int

    def fail(self, problem: str) -> NoReturn:
        raise EvoError(f"{self.path}, line {self.line}: {problem}")

    def mapping(self, what: str, known: Iterable[str] = ()) -> "Mapping[str, YamlValue]":
        """The keys of a mapping, which must be among ``known`` if any are."""
        if not isinstance(self.value, Mapping):
            self.fail(f"{what}: expected keys and values")
        known = tuple(known)
        for key, node in self.value.items():
            if known and key not in known:
                node.unknown(key, known)
        return self.value

    def unknown(self, key: str, known: Sequence[str], of: str = "here") -> NoReturn:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        self.fail(f"unknown key {key!r}.{hint} Known {of}: {', '.join(known) or 'none'}.")

    def items(self, what: str) -> "tuple[YamlValue, ...]":
        if not isinstance(self.value, tuple) or not self.value:
            self.fail(f"{what}: expected a list with one or more entries")
        return self.value

    def text(self, what: str) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"{what}: expected text, got {self.value!r}")
        return self.value

    def integer(self, what: str) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail(f"{what}: expected a whole number, got {self.value!r}")
        return self.value


def read(path: Path) -> tuple[YamlValue, str]:
    """The YAML file ``path`` as nodes, and its text.

    Raises:
        EvoError: it can't be read or is no YAML, or a key is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise EvoError(f"{path}: is empty; expected keys such as merge_method and models")
        return _node(root, loader.construct_object, path, 0), text
    except (OSError, UnicodeDecodeError) as error:
        raise EvoError(f"{path}: can't be read ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise EvoError(f"{path}{line}: not valid YAML: {problem}") from error


def _node(node: Any, construct: Callable[[Any], Any], path: Path, depth: int) -> YamlValue:
    line = node.start_mark.line + 1
    if depth > _DEPTH:
        raise EvoError(f"{path}, line {line}: more than {_DEPTH} levels deep")
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_node(n, construct, path, depth + 1) for n in node.value)
        return YamlValue(items, path, line)
    if isinstance(node, yaml.MappingNode):
        made: dict[str, YamlValue] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in made:
                raise EvoError(
                    f"{path}, line {key.start_mark.line + 1}: {name!r} is set twice, first on line "
                    f"{made[name].line}"
                )
            inner = _node(value, construct, path, depth + 1)
            made[name] = YamlValue(inner.value, path, key.start_mark.line + 1)
        return YamlValue(made, path, line)
    try:
        return YamlValue(construct(node), path, line)
    except (ValueError, LookupError, AttributeError) as error:  # `!!bool maybe`, 2024-13-01
        raise EvoError(f"{path}, line {line}: not a YAML value ({error})") from error
