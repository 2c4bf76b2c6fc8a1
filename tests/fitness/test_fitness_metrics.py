"""One conformance suite over METRICS, then what each metric means."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fitness.examples import Row
from fitness.metrics import METRICS
from fitness.metrics.generated_text import extract_number
from fitness.metrics.metric import Metric, TaskOptions
from fitness.requests import (
    Call,
    CallOutput,
    Generate,
    LogLikelihood,
    LogLikelihoodOutput,
    Output,
    Request,
    RollingLogLikelihood,
    RollingOutput,
)
from fitness.tasks.task import TaskError

OPTIONS = TaskOptions(function="users_metric:length")


@pytest.fixture(autouse=True)
def user_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_metric.py").write_text(
        "def length(example, output):\n    return len(output) + example.get('more', 0)\n"
        "def nothing(example, output):\n    return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("users_metric", None)


def sample(metric: Metric) -> Row:
    row: Row = json.loads(metric.row_format.sample) if metric.row_format else {"data": "dev"}
    return row


def plausible(request: Request) -> Output:
    match request:
        case LogLikelihood(continuation=text):
            return LogLikelihoodOutput(-float(len(text)), True, len(text))
        case RollingLogLikelihood(text=text):
            return RollingOutput(-2.0 * len(text), len(text))
        case Generate():
            return "4"
        case Call():
            return CallOutput((0.5, 1.0))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metrics_own_sample_row_fits_it_and_is_scored(metric: Metric) -> None:
    row = sample(metric)
    if metric.row_format:
        assert set(row) == set(metric.row_format.keys)
        assert metric.row_format.problem(row) is None
        assert metric.row_format.identity(row) == metric.row_format.identity(dict(row))
    assert metric.check is None or metric.check(row, OPTIONS) is None
    requests = metric.requests(row, OPTIONS)
    assert requests
    assert requests == metric.requests(row, OPTIONS)
    scored = metric.example_scores(row, [plausible(r) for r in requests], OPTIONS)
    assert scored
    assert metric.row_format is None or len(scored) == 1
    assert all(isinstance(s.value, float) and s.weight > 0 for s in scored)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_options_a_metric_does_not_name_change_none_of_its_requests(metric: Metric) -> None:
    changed = {
        "max_tokens": 77,
        "stop": ("\n",),
        "regex": "x",
        "chat": True,
        "end": "!",
        "temperature": 0.5,
        "seed": 3,
    }
    row = sample(metric)
    default = metric.requests(row, OPTIONS)
    for name, value in changed.items():
        options = TaskOptions(function=OPTIONS.function, **{name: value})
        if name not in metric.options:
            assert metric.requests(row, options) == default, name


@pytest.mark.parametrize(
    "metric",
    [m for m in METRICS.values() if m.voting],
    ids=[m.name for m in METRICS.values() if m.voting],
)
def test_scores_of_answers_are_the_metrics_own(metric: Metric) -> None:
    voting, row = metric.voting, sample(metric)
    assert voting is not None
    requests = voting.requests(row, OPTIONS)
    answer = voting.answer(row, [plausible(r) for r in requests], OPTIONS)
    scored = metric.example_scores(
        row, [plausible(r) for r in metric.requests(row, OPTIONS)], OPTIONS
    )
    assert voting.score(row, answer, OPTIONS) == scored[0].value
    assert scored[0].answer == answer


def score(name: str, row: Row, outputs: Sequence[Output], **options: Any) -> float:
    (scored,) = METRICS[name].example_scores(row, outputs, TaskOptions(**options))
    return scored.value


def test_exact_match_asks_for_the_answer_and_its_end() -> None:
    row = {"prompt": "2+2=", "answer": "4"}
    ask = METRICS["exact_match"].requests
    assert ask(row, TaskOptions()) == (LogLikelihood("2+2=", "4", end=True),)
    assert ask(row, TaskOptions(end="\n")) == (LogLikelihood("2+2=", "4\n"),)
    assert ask(row, TaskOptions(end="", chat=True)) == (LogLikelihood("2+2=", "4", chat=True),)


@pytest.mark.parametrize(
    ("output", "end", "expected"),
    [
        ("4", "eos", 1.0),
        ("4 ", "eos", 0.0),
        ("42", "", 1.0),
        ("14", "", 0.0),
        ("4\nmore", "\n", 1.0),
        ("4", "\n", 0.0),
        ("42\n", "\n", 0.0),
    ],
)
def test_exact_match_by_generation(output: str, end: str, expected: float) -> None:
    row = {"prompt": "2+2=", "answer": "4"}
    assert score("exact_match_generate", row, [output], end=end) == expected


def lls(*logprobs: float) -> list[Output]:
    return [LogLikelihoodOutput(p, False, 1) for p in logprobs]


def test_choices_by_likelihood_by_bytes_and_by_order_when_tied() -> None:
    row = {"prompt": "", "choices": ["aaaa", "b", "é"], "label": 0}
    assert score("accuracy", row, lls(-2.0, -1.0, -3.0)) == 0.0
    assert score("accuracy_norm", row, lls(-2.0, -1.0, -3.0)) == 1.0
    assert score("accuracy", row, lls(-1.0, -1.0, -1.0)) == 1.0
    # "é" is two bytes: -1.1 / 2 beats -1.0 / 1 and -4 / 4.
    (scored,) = METRICS["accuracy_norm"].example_scores(row, lls(-4.0, -1.0, -1.1), TaskOptions())
    assert scored.answer == 2


def test_bits_per_byte_weighs_by_bytes() -> None:
    (scored,) = METRICS["bits_per_byte"].example_scores(
        {"text": "éa"}, [RollingOutput(-3.0, 2)], TaskOptions()
    )
    assert scored.value == pytest.approx(1 / 0.6931471805599453)
    assert scored.weight == 3
    assert not METRICS["bits_per_byte"].higher_is_better


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", "18"),
        ("3 + 4 = 7", "7"),
        ("$1,234,000.50 in all", "1234000.5"),
        ("-0.0", "0"),
        ("-.5", "-0.5"),
        ("1.8e1", "18"),
        ("from 10-12", "12"),
        ("x = 100", "100"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345"),
        ("none", ""),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str) -> None:
    assert extract_number(text) == number


def test_numbers_are_compared_as_decimals() -> None:
    row = {"prompt": "", "answer": "so 9+9 = 18 #### 1,018"}
    assert score("numeric_match", row, ["it is 1018.00"]) == 1.0
    assert score("numeric_match", row, ["it is 1018.01"]) == 0.0
    assert score("numeric_match", row, ["no idea"]) == 0.0
    assert score("numeric_match", row, ["A: 1018, not 3"], regex=r"A: (\S+?),") == 1.0
    assert score("numeric_match", {"prompt": "", "answer": 0.1}, ["0.10"]) == 1.0
    assert score("numeric_match", row, ["A: x"], regex=r"A: (\S+)") == 0.0


def test_a_users_function_sees_all_keys_and_must_return_a_number() -> None:
    row = {"prompt": "p", "more": 2}
    assert score("function", row, ["four"], function="users_metric:length") == 6.0
    with pytest.raises(TaskError, match="users_metric:nothing' returned None"):
        score("function", row, ["four"], function="users_metric:nothing")
