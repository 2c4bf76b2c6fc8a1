"""Exact match by one teacher-forced pass and by generation agree, on a model with both outcomes."""

import random

import pytest
import torch
from tiny_lm import CHARACTERS, build_model, save

from fitness.engines.hf.engine import HFEngine
from fitness.examples import Row
from fitness.metrics import METRICS
from fitness.metrics.metric import TaskOptions
from fitness.requests import Output


def rows(count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        digits = "".join(rng.choices("0123456789", k=rng.randint(1, 5)))
        found.append({"prompt": f"copy {digits}=", "answer": digits})
    return found


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> HFEngine:
    """A Llama trained for seconds to copy digits and then end: it gets some right, some wrong."""
    model = build_model("llama")
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.08)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for step in range(280):
        batch = rows(32, seed=step)
        texts = [[*(4 + CHARACTERS.index(c) for c in r["prompt"] + r["answer"]), 2] for r in batch]
        width = max(map(len, texts))
        ids = torch.tensor([t + [0] * (width - len(t)) for t in texts])
        labels = ids.masked_fill(ids == 0, -100)
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return HFEngine(save(tmp_path_factory.mktemp("copier"), model.eval()))


def answers(
    engine: HFEngine, metric: str, examples: list[Row], options: TaskOptions
) -> list[Output]:
    made = METRICS[metric].requests
    return engine.answer(engine.prepare([r for row in examples for r in made(row, options)]))


@pytest.mark.parametrize("end", ["eos", "", "1"])
def test_teacher_forcing_and_generation_agree(copier: HFEngine, end: str) -> None:
    options = TaskOptions(end=end)
    examples = [r for r in rows(260, seed=10**6) if end in ("eos", "") or end not in r["answer"]]
    if end == "1":  # an answer and then a literal: let it be the copied number's last digit
        examples = [{"prompt": r["prompt"][:-1] + "1=", "answer": r["answer"]} for r in examples]
    values = {}
    for name in ("exact_match", "exact_match_generate"):
        outputs = answers(copier, name, examples, options)
        values[name] = [
            METRICS[name].example_scores(row, [output], options)[0].value
            for row, output in zip(examples, outputs, strict=True)
        ]
    assert values["exact_match"] == values["exact_match_generate"]
    # Both verdicts are met. How many of each depends on the processor that the copier was trained on.
    right = sum(values["exact_match"])
    assert min(right, len(examples) - right) >= 5


def test_spaces_before_the_answer_belong_to_it_both_ways(copier: HFEngine) -> None:
    # The model ends its prompt with "=", and never writes a space: both must say so.
    examples = [{**r, "prompt": r["prompt"] + " "} for r in rows(40, seed=7)]
    for name in ("exact_match", "exact_match_generate"):
        outputs = answers(copier, name, examples, TaskOptions())
        scored = [
            METRICS[name].example_scores(row, [output], TaskOptions())[0].value
            for row, output in zip(examples, outputs, strict=True)
        ]
        assert sum(scored) == 0


def test_votes_are_scored_as_the_metric_is(copier: HFEngine) -> None:
    metric = METRICS["exact_match"]
    assert metric.voting is not None
    examples, options = rows(80, seed=3), TaskOptions()
    forced = answers(copier, "exact_match", examples, options)
    spoken = answers(copier, "exact_match_generate", examples, options)
    for row, one, other in zip(examples, forced, spoken, strict=True):
        answer = metric.voting.answer(row, [other], options)
        scored = metric.example_scores(row, [one], options)[0]
        assert metric.voting.score(row, answer, options) == scored.value
        assert scored.answer in (None, answer)
