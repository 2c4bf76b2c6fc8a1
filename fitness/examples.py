"""Examples from JSONL files: one JSON object a line, checked before any model is loaded."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from operators.errors import EvoError

Row = Mapping[str, Any]


class TaskError(EvoError):
    """A task's options or files are wrong; the message names the file, line and key."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a file: its keys (also those no metric reads) and its line, counted from 1."""

    row: Row
    line: int


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What a metric needs of a row.

    Attributes:
        sample: a row that fits, shown in messages.
        problem: what is wrong with a row, or None. Given a row that has all of ``sample``'s keys.
        identity: the part of a row that must not occur in two splits.
    """

    sample: str
    keys: tuple[str, ...]
    problem: Callable[[Row], str | None]
    identity: Callable[[Row], tuple[str, ...]]


def _text_problem(row: Row, key: str, *, empty: bool = True) -> str | None:
    value = row[key]
    if not isinstance(value, str):
        remedy = f" Write it in quotes: {json.dumps(str(value))}." if _is_number(value) else ""
        return f"{key!r} must be a string, not {_kind(value)}.{remedy}"
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


def _prompt_problem(row: Row) -> str | None:
    return _text_problem(row, "prompt")


def _answer_problem(row: Row) -> str | None:
    return _text_problem(row, "prompt") or _text_problem(row, "answer")


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
        return f"'choices' has {len(choices)} entries; a choice needs at least 2."
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


def _text_row_problem(row: Row) -> str | None:
    return _text_problem(row, "text", empty=False)


def _prompt_identity(row: Row) -> tuple[str, ...]:
    return (row["prompt"].strip(),)


def _choices_identity(row: Row) -> tuple[str, ...]:
    return (row["prompt"].strip(), *sorted(row["choices"]))


def _text_identity(row: Row) -> tuple[str, ...]:
    return (row["text"].strip(),)


PROMPT: Final = RowFormat('{"prompt": "2+2="}', ("prompt",), _prompt_problem, _prompt_identity)
ANSWER: Final = RowFormat(
    '{"prompt": "2+2=", "answer": "4"}', ("prompt", "answer"), _answer_problem, _prompt_identity
)
NUMBER: Final = RowFormat(
    '{"prompt": "How much is 2+2?", "answer": "4"}',
    ("prompt", "answer"),
    _number_problem,
    _prompt_identity,
)
CHOICES: Final = RowFormat(
    '{"prompt": "The sky is", "choices": [" blue", " red"], "label": 0}',
    ("prompt", "choices", "label"),
    _choices_problem,
    _choices_identity,
)
TEXT: Final = RowFormat(
    '{"text": "Once upon a time"}', ("text",), _text_row_problem, _text_identity
)


def read_jsonl(path: Path, *, limit: int | None = None) -> tuple[Example, ...]:
    """The first ``limit`` rows of ``path`` (all when None).

    UTF-8 with or without a byte-order mark, any line ends; blank lines are passed over.

    Raises:
        TaskError: no such file, no rows, not UTF-8, or a line that is not a JSON object.
    """
    if not path.is_file():
        raise TaskError(_no_file(path))
    try:
        # Not splitlines: JSON strings may hold U+2028, which that takes for a line's end.
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
        raise TaskError(f"{path}: no examples in it. Write one JSON object a line.")
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
            "JSONL has one object a line, without a list around them."
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
