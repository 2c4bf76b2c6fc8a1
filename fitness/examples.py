"""Examples in JSONL files, one JSON object on each line, and the row formats that metrics take."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from operators.errors import EvoError

Row = Mapping[str, Any]


class TaskError(EvoError):
    """An option, file or row of a task is wrong; the message names the file, line and key."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a file with all its keys, and the number of its line, counted from 1."""

    row: Row
    line: int


@dataclass(frozen=True, slots=True)
class RowFormat:
    """The rows that a metric takes.

    Attributes:
        sample: a valid row, as JSON. Its keys are required; other keys are kept.
        rules: what is wrong with a row that has these keys, or None. By default, each value must be of the
            same JSON type as in the sample.
        input: the part of a row that must not occur in two splits. By default, the value of the first key.
    """

    sample: str
    rules: Callable[[Row], str | None] | None = None
    input: Callable[[Row], tuple[str, ...]] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The required keys."""
        return tuple(json.loads(self.sample))

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row that has all required keys, or None."""
        if self.rules is not None:
            return self.rules(row)
        found = (_type_problem(row, key, value) for key, value in json.loads(self.sample).items())
        return next(filter(None, found), None)

    def identity(self, row: Row) -> tuple[str, ...]:
        """The part of a row that must not occur in two splits."""
        if self.input is not None:
            return self.input(row)
        value = row[self.keys[0]]
        return (value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True),)


def _type_problem(row: Row, key: str, sample: object) -> str | None:
    if isinstance(sample, str):
        return _text_problem(row, key)
    if _kind(row[key]) != _kind(sample):
        return f"{key!r} must be {_kind(sample)}, not {_kind(row[key])}."
    return None


def _text_problem(row: Row, key: str, *, empty: bool = True) -> str | None:
    value = row[key]
    if not isinstance(value, str):
        fix = f" Write it in quotes: {json.dumps(str(value))}." if _is_number(value) else ""
        return f"{key!r} must be a string, not {_kind(value)}.{fix}"
    if not empty and not value:
        return f"{key!r} is empty."
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{key!r} has half of a surrogate pair (\\ud800 to \\udfff), which is not text."
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if _is_number(value) else "a string")


def _number_problem(row: Row) -> str | None:
    answer = row["answer"]
    return _text_problem(row, "prompt") or (
        None if _is_number(answer) else _text_problem(row, "answer", empty=False)
    )


def _choices_problem(row: Row) -> str | None:
    if problem := _text_problem(row, "prompt"):
        return problem
    choices, label = row["choices"], row["label"]
    if not isinstance(choices, list):
        return f"'choices' must be a list of strings, not {_kind(choices)}."
    if len(choices) < 2:
        return f"'choices' has {len(choices)} entries; it needs at least 2."
    for i, choice in enumerate(choices):
        if problem := _text_problem({f"choices[{i}]": choice}, f"choices[{i}]", empty=False):
            return problem
    if not isinstance(label, int) or isinstance(label, bool):
        return f"'label' must be the index of the right choice, an integer, not {_kind(label)}."
    if not 0 <= label < len(choices):
        return (
            f"'label' is {label}, but with {len(choices)} choices it must be from 0 to "
            f"{len(choices) - 1} (the first choice is 0)."
        )
    return None


def _no_text_problem(row: Row) -> str | None:
    return _text_problem(row, "text", empty=False)


def _choices_input(row: Row) -> tuple[str, ...]:
    return (row["prompt"].strip(), *sorted(row["choices"]))


PROMPT: Final = RowFormat('{"prompt": "2+2="}')
ANSWER: Final = RowFormat('{"prompt": "2+2=", "answer": "4"}')
NUMBER: Final = RowFormat('{"prompt": "How much is 2+2?", "answer": "4"}', _number_problem)
CHOICES: Final = RowFormat(
    '{"prompt": "The sky is", "choices": [" blue", " red"], "label": 0}',
    _choices_problem,
    _choices_input,
)
TEXT: Final = RowFormat('{"text": "Once upon a time"}', _no_text_problem)


def read_jsonl(path: Path, *, limit: int | None = None) -> tuple[Example, ...]:
    """The first ``limit`` rows of ``path``, or all when None.

    The file is UTF-8, with or without a byte-order mark, with any line ends; blank lines are skipped.

    Raises:
        TaskError: no such file, no rows, not UTF-8, or a line that is not a JSON object.
    """
    if not path.is_file():
        raise TaskError(_no_file(path))
    try:
        # Not splitlines: JSON strings may contain U+2028, which it treats as a line end.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{path}: not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}). "
            "Save it as UTF-8."
        ) from None
    examples: list[Example] = []
    for number, line in enumerate(lines, start=1):
        if len(examples) == limit:
            break
        if line.strip():
            examples.append(Example(_parse(line, f"{path}, line {number}"), number))
    if not examples:
        raise TaskError(f"{path}: the file has no examples. Write one JSON object on each line.")
    return tuple(examples)


def _parse(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where}: not JSON: {error.msg} at column {error.colno}: {line.strip()[:60]!r}. "
            "JSONL has one complete JSON object on each line."
        ) from None
    if not isinstance(row, dict):
        raise TaskError(
            f"{where}: {_kind(row)}, not a JSON object. "
            "JSONL has one object on each line, without a list around them."
        )
    return row


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a JSONL file."
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    if near:
        return f"no such file {str(path)!r}. Did you mean {str(path.parent / near[0])!r}?"
    where = "" if path.parent.is_dir() else f" (no folder {str(path.parent)!r} either)"
    return f"no such file {str(path)!r}{where}."
