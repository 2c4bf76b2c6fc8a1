"""Tasks from JSONL files: what is read, what is refused and how, and what is asked and scored."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from fitness.requests import Call, CallOutput, LogLikelihood, LogLikelihoodOutput, RollingOutput
from fitness.tasks.task import TaskError, TaskSpec, load_task

SUM = {"prompt": "1+1=", "answer": "2"}
CHOICE = {"prompt": "sky", "choices": [" blue", " red"], "label": 0}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def spec(path: str, metric: str = "exact_match", **options: Any) -> TaskSpec:
    return TaskSpec("sums", metric, files=(("dev", path),), **options)


@pytest.fixture(autouse=True)
def users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_task.py").write_text("def f(a, b):\n    return 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("users_task", None)


def test_requests_and_scores_follow_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", SUM, {**SUM, "prompt": "0+2=", "note": "kept"}, CHOICE | SUM)
    task = load_task(spec(path))
    assert task.requests("dev")[:2] == [
        LogLikelihood("1+1=", "2", end=True),
        LogLikelihood("0+2=", "2", end=True),
    ]
    assert task.splits["dev"][1].row["note"] == "kept"
    outputs = [LogLikelihoodOutput(-1.0, greedy, 2) for greedy in (True, False, True)]
    scores = task.score("dev", outputs)
    assert scores.values == (1.0, 0.0, 1.0)
    assert scores.answers == ("2", None, "2")
    assert scores.mean == pytest.approx(2 / 3)
    assert scores.standard_error == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="3 requests need as many outputs, got 2"):
        task.score("dev", outputs[:2])
    with pytest.raises(TaskError, match="no split 'test', only \\['dev'\\]"):
        task.requests("test")


def test_choices_ask_once_a_choice_and_can_be_voted_on(tmp_path: Path) -> None:
    task = load_task(spec(write(tmp_path / "c.jsonl", CHOICE, CHOICE), "accuracy"))
    assert len(task.requests("dev")) == 4
    assert task.answer_requests("dev") == task.requests("dev")
    outputs = [LogLikelihoodOutput(p, False, 1) for p in (-1.0, -2.0, -2.0, -1.0)]
    assert task.answers("dev", outputs) == (0, 1)
    assert task.score("dev", outputs).answers == (0, 1)
    combined = task.combine_answers([(1, 1), (0, 1), (0, 0)])
    assert combined == (0, 1)
    assert task.score_answers("dev", combined).values == (1.0, 0.0)


def test_exact_answers_are_generated_and_free_text_takes_the_medoid(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", SUM)
    task = load_task(spec(path))
    assert task.supports_answers
    assert task.answers("dev", ["2"]) == ("2",)
    assert task.score_answers("dev", ["2"]).values == (1.0,)
    free = load_task(spec(path, "users_task:f"))
    assert free.combine_answers([["a cat"], ["dogs"], ["a cat!"]])[0] in ("a cat", "a cat!")


def test_bits_per_byte_is_the_corpus_and_has_no_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"text": "ab"}, {"text": "abcdef"})
    task = load_task(spec(path, "bits_per_byte"))
    assert not task.higher_is_better
    assert not task.supports_answers
    nats = 0.6931471805599453
    scores = task.score("dev", [RollingOutput(-4 * nats, 2), RollingOutput(-4 * nats, 6)])
    assert scores.values == pytest.approx((2.0, 4 / 6))
    assert scores.mean == pytest.approx(8 / 8)
    with pytest.raises(TaskError, match="no answers to vote on"):
        task.answer_requests("dev")


def test_a_function_with_data_is_called_with_each_splits_string() -> None:
    task = load_task(TaskSpec("m", "users_task:f", data=(("dev", "a"), ("test", "b"))))
    assert task.requests("test") == [Call("users_task:f", "b")]
    assert task.score("test", [CallOutput((1.0, 0.0, 0.5))]).values == (1.0, 0.0, 0.5)
    assert not task.supports_answers


def test_byte_order_marks_crlf_blank_lines_and_odd_separators_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [json.dumps({**SUM, "prompt": p}, ensure_ascii=False) for p in ("a\u2028b", "c")]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(rows).encode() + b"\r\n \r\n")
    examples = load_task(spec(str(path))).splits["dev"]
    assert [e.row["prompt"] for e in examples] == ["a\u2028b", "c"]
    assert [e.line for e in examples] == [1, 3]


def test_a_limit_takes_the_first_examples(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", SUM, {**SUM, "prompt": "2"}, {"bad": 1})
    assert len(load_task(spec(path, limits=(("dev", 2),))).splits["dev"]) == 2


BAD_ROWS = {
    "missing": ("exact_match", {"prompt": "a", "anser": "b"}, "no key 'answer'.*Is it 'anser'"),
    "sample": ("exact_match", {"x": 1}, 'Rows for exact_match look like {"prompt"'),
    "number": ("exact_match", {"prompt": "a", "answer": 4}, "'answer' must be a string.*\"4\""),
    "null": ("exact_match", {"prompt": None, "answer": "4"}, "'prompt' must be a string, not null"),
    "range": ("accuracy", {**CHOICE, "label": 2}, "'label' is 2.*from 0 to 1"),
    "bool": ("accuracy", {**CHOICE, "label": True}, "'label' must be the index"),
    "one": ("accuracy", {**CHOICE, "choices": ["a"]}, "'choices' has 1 entries"),
    "string": ("accuracy", {**CHOICE, "choices": "ab"}, "'choices' must be a list"),
    "empty choice": ("accuracy_norm", {**CHOICE, "choices": ["", "a"]}, r"'choices\[0\]' is empty"),
    "wrong metric": ("accuracy", SUM, "no key 'choices'; the row has 'prompt', 'answer'"),
    "empty text": ("bits_per_byte", {"text": ""}, "'text' is empty"),
    "no number": ("numeric_match", {"prompt": "a", "answer": "ten"}, "no number in it: 'ten'"),
    "surrogate": ("exact_match", {"prompt": "\ud800", "answer": "a"}, "surrogate"),
}


@pytest.mark.parametrize(("metric", "row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_line_and_key(
    metric: str, row: Any, message: str, tmp_path: Path
) -> None:
    good = {"accuracy": CHOICE, "accuracy_norm": CHOICE, "bits_per_byte": {"text": "a"}}
    path = write(tmp_path / "d.jsonl", good.get(metric, SUM), row)
    with pytest.raises(TaskError, match=rf"d\.jsonl, line 2: (?s:.*){message}"):
        load_task(spec(path, metric))


BAD_FILES = {
    "json": (b'{"prompt": "a", "answer": }\n', "line 1: not JSON: Expecting value at column 27"),
    "list": (b'[{"prompt": "a"}]\n', "line 1: a list, not a JSON object"),
    "pretty": (b"{\n", "line 1: not JSON"),
    "empty": (b"\n \n", "the file has no examples"),
    "latin": (b'{"prompt": "\xe9"}\n', "not UTF-8 .byte 12 is 0xe9"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(TaskError, match=rf"d\.jsonl(, |: ){message}"):
        load_task(spec(str(tmp_path / "d.jsonl")))


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "sums_dev.jsonl", SUM)
    with pytest.raises(TaskError, match=r"no such file .*Did you mean .*sums_dev\.jsonl"):
        load_task(spec(str(tmp_path / "sum_dev.jsonl")))
    with pytest.raises(TaskError, match="is a folder"):
        load_task(spec(str(tmp_path)))


BAD_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "metric": ({"metric": "exact_macth"}, "Did you mean 'exact_match'.*package.module:name"),
    "function by kind": ({"metric": "call"}, "no metric 'call'"),
    "function": ({"metric": "users_task:g"}, "has no 'g'"),
    "unused": ({"metric": "accuracy", "regex": "x"}, "regex has no effect on .*'accuracy'"),
    "stop": ({"stop": ("\n",)}, "stop has no effect on the metric 'exact_match'"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens must be at least 1"),
    "regex": ({"metric": "numeric_match", "regex": "("}, "not a regular expression"),
    "temperature": ({"metric": "numeric_match", "temperature": -1.0}, "temperature must be 0"),
    "empty stop": ({"metric": "numeric_match", "stop": ("",)}, "stop contains an empty string"),
    "limit split": ({"limits": (("tset", 3),)}, "'tset', which is not a split"),
    "limit": ({"limits": (("dev", 0),)}, "must be at least 1, got 0"),
    "data": ({"data": (("dev", "x"),)}, "needs a JSONL file for each split"),
    "both": ({"metric": "users_task:f", "data": (("dev", "x"),)}, "either files .* or data"),
    "end in answer": ({"end": "2"}, "'answer' contains '2', which is the task's end"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_SPECS.values(), ids=BAD_SPECS)
def test_bad_options_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", SUM)
    with pytest.raises(TaskError, match=message):
        load_task(spec(path, **changes))


@pytest.mark.parametrize(
    ("metric", "row", "again"),
    [
        ("exact_match", SUM, {"prompt": "1+1= ", "answer": "other"}),
        ("accuracy", CHOICE, {**CHOICE, "choices": [" red", " blue"], "label": 1}),
        ("bits_per_byte", {"text": "abc"}, {"text": "abc\n"}),
    ],
)
def test_splits_that_share_an_input_are_refused(
    metric: str, row: Any, again: Any, tmp_path: Path
) -> None:
    def other(i: int) -> Any:
        return row | ({"text": f"{i}"} if "text" in row else {"prompt": f"{i}"})

    a = write(tmp_path / "a.jsonl", other(0), row)
    b = write(tmp_path / "b.jsonl", other(1), other(2), again)
    files = (("dev", a), ("select", write(tmp_path / "s.jsonl", other(3))), ("test", b))
    with pytest.raises(
        TaskError, match=r"'dev' and 'test' share 1 input.*a\.jsonl, line 2; .*b\.jsonl, line 3"
    ):
        load_task(TaskSpec("t", metric, files=files))


def test_data_strings_and_split_names_must_differ() -> None:
    with pytest.raises(TaskError, match=r"share 1 input.*data\.dev; data\.test"):
        load_task(TaskSpec("m", "users_task:f", data=(("dev", "a"), ("test", "a"))))
    with pytest.raises(TaskError, match="split 'dev' is given twice"):
        load_task(TaskSpec("m", "users_task:f", data=(("dev", "a"), ("dev", "b"))))


def test_the_same_prompt_with_other_choices_is_another_input(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", CHOICE)
    b = write(tmp_path / "b.jsonl", {**CHOICE, "choices": [" green", " red"]})
    assert load_task(TaskSpec("t", "accuracy", files=(("dev", a), ("test", b))))


def test_tasks_are_read_without_importing_torch_or_transformers() -> None:
    code = "import sys, fitness.tasks.task; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
