"""load_config: YAML in, RunConfig out; an error names the file, the line, the key and what is valid."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from evo.algorithms import known_settings
from evo.config.schema import RunConfig
from evo.errors import EvoError

Key = tuple[str | int, ...]
# Beside its own error PyYAML raises what its constructors raise: ValueError for 2024-13-01, KeyError for
# `!!bool maybe`, AttributeError for `!!timestamp soon`, RecursionError for a thousand brackets.
_NOT_YAML = (
    *(yaml.YAMLError, ValueError, LookupError, ArithmeticError),
    *(AttributeError, TypeError, RecursionError),
)


def load_config(
    path: Path | str, overrides: Sequence[str] = (), *, check_files: bool = True
) -> RunConfig:
    """Read a run's config. ``overrides`` are ``key=value`` with dots, e.g. ``budget.evaluations=50``.

    Without ``check_files``, files and folders that it names need not be on this machine.

    Raises:
        EvoError: the file can't be read, is not YAML, or has mistakes; all of them are listed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvoError(f"{path}: can't be read ({error})") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise EvoError(f"{path}{line}: not valid YAML: {problem}") from error
    if not isinstance(data, dict) or node is None:
        raise EvoError(f"{path}: expected keys such as base, founders and tasks")
    lines = dict(_lines(node, (), path, set()))
    if isinstance(data.get("algorithm"), str):  # so that --set algorithm.sigma=1 has a place
        data["algorithm"] = {"name": data["algorithm"]}
    for override in overrides:
        key = apply_override(data, override)
        lines = {k: v for k, v in lines.items() if k[: len(key)] != key}
        for length in range(1, len(key) + 1):  # parent keys that the file lacks come from it too
            lines.setdefault(key[:length], f"--set {override}")
    folder = path.resolve().parent
    try:
        # Validators of tasks can't see the config's root: the context has it.
        root = (folder / Path(str(data.get("root", "."))).expanduser()).resolve()
        context = {"folder": folder, "root": root, "check_files": check_files}
        return RunConfig.model_validate(data, context=context)
    except ValidationError as error:
        raise EvoError(_explain(error, path, lines, data)) from error
    except (OSError, ValueError, RuntimeError) as error:  # a path that no system call takes
        raise EvoError(f"{path}: {error}") from error


def _lines(node: yaml.Node, at: Key, path: Path, seen_nodes: set[int]) -> Iterator[tuple[Key, str]]:
    """The line of every key, as ``line 14``. Raises EvoError for two equal keys in one mapping.

    A node with aliases is entered once: aliases may be cyclic, or grow without bound.
    """
    if id(node) in seen_nodes:
        return
    seen_nodes.add(id(node))
    yield at, f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen:
                raise EvoError(
                    f"{path}, line {line}: {name!r} is set twice, first on line {seen[name]}"
                )
            seen[name] = line
            yield from _lines(value, (*at, name), path, seen_nodes)
            yield (*at, name), f"line {line}"
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*at, index), path, seen_nodes)


def apply_override(data: dict[str, Any], override: str) -> Key:
    """Apply ``override`` ("key.key=value") to ``data`` and return the key.

    Raises:
        EvoError: it has another form, or a key on its way can't hold others.
    """
    name, separator, text = override.partition("=")
    parts = [p.strip() for p in name.split(".")]
    if not separator or not all(parts):
        raise EvoError(f"--set {override}: expected key=value, e.g. budget.evaluations=50")
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except _NOT_YAML as error:
        raise EvoError(f"--set {override}: the value is not valid YAML ({error})") from error
    key: list[str | int] = []
    at: Any = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(at, list):
            if not part.isdecimal() or int(part) >= len(at):
                raise EvoError(f"--set {override}: {part!r} is no position in a list of {len(at)}")
            step: str | int = int(part)
        elif isinstance(at, dict):
            step = part
        else:
            raise EvoError(f"--set {override}: {'.'.join(parts[:depth])} has no keys of its own")
        key.append(step)
        if last:
            # Settings belong to one algorithm: `algorithm=genome` resets them to genome's defaults.
            at[step] = {"name": value} if key == ["algorithm"] and isinstance(value, str) else value
        else:
            if isinstance(at, dict) and (step not in at or at[step] is None):
                at[step] = {}
            at = at[step]
    return tuple(key)


def _explain(error: ValidationError, path: Path, lines: dict[Key, str], data: Any) -> str:
    found = []
    problems = error.errors()
    places = [p["loc"] for p in problems]
    for problem in problems:
        here = problem["loc"]
        if any(len(other) > len(here) and other[: len(here)] == here for other in places):
            continue  # a consequence of an inner mistake
        key = _key_in(data, problem["loc"])
        place = next(lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in lines)
        name = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in key).lstrip(".")
        where = place if place.startswith("--set") else f"{path}, {place}"
        found.append(f"{where}: {name + ': ' if name else ''}{_say(problem, key, data)}")
    return "\n".join(dict.fromkeys(found))


def _key_in(data: Any, location: tuple[str | int, ...]) -> Key:
    """``location`` without the names of union members that pydantic adds."""
    key: list[str | int] = []
    at = data
    for index, part in enumerate(location):
        inside = part in at if isinstance(at, dict) else False
        if isinstance(at, list) and isinstance(part, int):
            inside = part < len(at)
        if inside:
            at = at[part]
        elif index < len(location) - 1 or part == "[key]":
            continue
        key.append(part)
    return tuple(key)


def _say(problem: Any, key: Key, data: Any) -> str:
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(problem["loc"], data)
        near = difflib.get_close_matches(str(key[-1]), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"unknown key.{hint} Known here: {', '.join(known)}."
    if kind == "missing":
        return "is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    plain = given is None or isinstance(given, str | int | float | bool)
    return message if kind == "value_error" or not plain else f"{message}, got {given!r}"


def _known_keys(location: tuple[str | int, ...], data: Any) -> list[str]:
    """The keys that are known where ``location`` has an unknown one."""
    if location[0] == "algorithm":
        return list(known_settings(_innermost_name(location, data)))
    model: Any = RunConfig
    for part in location[:-1]:
        if _is_model(model) and part in model.model_fields:
            model = _inner_model(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if _is_model(model) else []


def _innermost_name(location: tuple[str | int, ...], data: Any) -> str:
    """The name of the algorithm, or of the stage of a sequence, that holds ``location``."""
    at, name = data, ""
    for part in location[:-1]:
        at = at[part]
        name = at.get("name", name) if isinstance(at, dict) else name
    return name


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _inner_model(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    inner = [a for a in getattr(annotation, "__args__", ()) if _is_model(a)]
    return inner[0] if len(inner) == 1 else None
