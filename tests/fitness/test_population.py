"""Several individuals in one pass: everyone's own answers, to the last bit, or no company at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lm_requests import PAIRS, REQUESTS
from path_models import CONFIGS
from tiny_lm import KINDS, build_model, model_of, save
from torch import Tensor

from fitness.engines.base import NonFiniteOutputError
from fitness.engines.hf.engine import HFEngine
from fitness.engines.hf.model_batch import runner
from fitness.engines.hf.model_batch.size import ModelBatchSize, measure_size
from fitness.requests import Generate, LogLikelihood
from operators.tensors.weights import Stack, allocate_stack, layout_of


def stack_of(engine: HFEngine, count: int, seed: int = 0) -> Stack:
    """Individuals near what the engine has loaded, each another one."""
    torch.manual_seed(seed)
    tensors = dict(engine.model.named_parameters())
    stack = allocate_stack(layout_of(tensors), count)
    for name, tensor in tensors.items():
        noise = torch.randn(count, *tensor.shape)
        stack.tensors[name].copy_(tensor * (1 + 0.05 * noise))
    return stack


def one_by_one(engine: HFEngine, stack: Stack, prepared: Any) -> list[Any]:
    answers = []
    for i in range(len(stack)):
        engine.install(stack[i])
        answers.append(engine.answer(prepared))
    return answers


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*KINDS, "tied"])
def test_a_group_gives_everyone_their_own_answers(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = build_model("llama", tied=True) if kind == "tied" else build_model(kind)
    engine = HFEngine(save(tmp_path, model), dtype=dtype)
    prepared = engine.prepare(REQUESTS)
    assert engine.model_batch_size([prepared]) == 16
    stack = stack_of(engine, 23)  # 16 + 4 + 2 + 1
    before = engine.tokens
    found = engine.answer_many(stack, prepared)
    read = engine.tokens - before
    assert found == one_by_one(engine, stack, prepared)
    assert engine.tokens - before == 2 * read
    assert len({str(answers) for answers in found}) == len(stack)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_layout_runs_together_or_alone(kind: str, tmp_path: Path) -> None:
    config = CONFIGS[kind]()
    if kind != "gpt2":
        config.intermediate_size = 64  # activations that fill vectors
    torch.manual_seed(0)
    engine = HFEngine(save(tmp_path, transformers.AutoModelForCausalLM.from_config(config)))
    prepared = engine.prepare(REQUESTS)
    assert engine.model_batch_size([prepared]) > 1
    stack = stack_of(engine, 5)
    assert engine.answer_many(stack, prepared) == one_by_one(engine, stack, prepared)


@pytest.mark.usefixtures("eager")
def test_an_individual_of_nan_fails_alone(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")))
    prepared = engine.prepare(REQUESTS)
    stack = stack_of(engine, 4)
    next(iter(stack[2].tensors.values()))[:] = float("nan")
    found = engine.answer_many(stack, prepared)
    assert isinstance(found[2], NonFiniteOutputError)
    assert found[:2] == one_by_one(engine, stack[:2], prepared)
    assert found[3:] == one_by_one(engine, stack[3:], prepared)


@pytest.mark.usefixtures("eager")
def test_one_of_nan_decides_nothing_for_those_that_follow(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")))
    prepared = engine.prepare(REQUESTS)
    stack = stack_of(engine, 2)
    next(iter(stack[0].tensors.values()))[:] = float("nan")
    engine.install(stack[0])
    assert engine.model_batch_size([prepared]) == 1
    engine.install(stack[1])
    assert engine.model_batch_size([prepared]) > 1


def test_measuring_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")))
    prepared = engine.prepare(REQUESTS)
    before = engine.answer(prepared)
    engine.model_batch_size([prepared])
    assert engine.answer(prepared) == before


@pytest.mark.usefixtures("eager")
def test_what_generates_runs_alone(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")))
    scored, written = engine.prepare(PAIRS), engine.prepare([*PAIRS, Generate("12=", 3)])
    assert engine.model_batch_size([scored]) > 1
    assert engine.model_batch_size([scored, written]) == 1
    stack = stack_of(engine, 3)
    assert engine.answer_many(stack, written) == one_by_one(engine, stack, written)


@pytest.mark.usefixtures("eager")
def test_a_group_keeps_to_the_budget_of_tokens(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")), batch_tokens=100)
    prepared = engine.prepare([LogLikelihood(text, "x") for text in ("ten tokens", "net tokens")])
    assert engine.model_batch_size([prepared]) == 4


@pytest.mark.usefixtures("eager")
def test_a_model_that_mixes_its_rows_runs_one_by_one(tmp_path: Path) -> None:
    engine = HFEngine(save(tmp_path, build_model("llama")))
    engine.model.lm_head.register_forward_pre_hook(lambda m, a: (a[0] - a[0].mean(),))
    engine.model.model.layers[0].register_forward_pre_hook(lambda m, a: (a[0] - a[0].mean(),))
    prepared = engine.prepare(PAIRS)
    assert engine.model_batch_size([prepared]) == 1
    stack = stack_of(engine, 3)
    assert engine.answer_many(stack, prepared) == one_by_one(engine, stack, prepared)


def test_a_model_of_odd_sizes_runs_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its last activations fill no vector: in company their last bits are others, but so seldom that a
    # proof may not meet it.
    def trust(alone: Any, group: Any, counts: Any, clock: Any) -> ModelBatchSize:
        return ModelBatchSize(counts[-1], (1, *counts)) if counts else ModelBatchSize()

    monkeypatch.setattr(runner, "measure_size", trust)
    engine = HFEngine(save(tmp_path, model_of("llama", intermediate_size=53)))
    prepared = engine.prepare([LogLikelihood("abc", "d"), LogLikelihood("bcd", "a")])
    assert engine.model_batch_size([prepared]) == 1


# The choice itself


class Machine:
    """A clock, and work that takes as long as it is told."""

    def __init__(self, alone_s: float, pass_s: Callable[[int], float]) -> None:
        self.now = 0.0
        self._alone_s, self._pass_s = alone_s, pass_s

    def clock(self) -> float:
        return self.now

    def alone(self, i: int) -> Tensor:
        self.now += self._alone_s
        return torch.tensor([float(i)])

    def group(self, count: int) -> Tensor:
        self.now += self._pass_s(count)
        return torch.arange(float(count))[:, None]

    def choice(self) -> ModelBatchSize:
        return measure_size(self.alone, self.group, (2, 4, 8, 16), self.clock)


@pytest.mark.parametrize(
    ("pass_s", "count"),
    [
        (lambda n: 0.001 + n * 0.001, 16),  # half of the time is the same for any number
        (lambda n: 0.001 + n * (0.001 if n <= 4 else 0.003), 4),  # what fits in a cache
        (lambda n: n * 0.00195, 1),  # too little to trust
        (lambda n: n * 0.004, 1),
    ],
)
def test_the_fastest_count_is_chosen(pass_s: Callable[[int], float], count: int) -> None:
    assert Machine(0.002, pass_s).choice().count == count


def test_a_slow_model_is_not_measured_for_long() -> None:
    machine = Machine(2.0, lambda n: n * 1.0)
    assert machine.choice() == ModelBatchSize()
    assert machine.now < 3.0


def test_a_count_with_other_bits_is_no_candidate() -> None:
    machine = Machine(0.002, lambda n: 0.002)

    def group(count: int) -> Tensor:
        found = machine.group(count)
        return found if count < 8 else found + 1e-7

    found = measure_size(machine.alone, group, (2, 4, 8, 16), machine.clock)
    assert (found.count, found.proved) == (4, (1, 2, 4))


def test_nan_proves_nothing() -> None:
    nan = torch.tensor([float("nan")])
    assert (
        measure_size(lambda i: nan, lambda n: nan.expand(n, 1), (2,), lambda: 0.0)
        == ModelBatchSize()
    )


def test_what_is_left_over_runs_in_proved_counts() -> None:
    sizes = [len(places) for places in ModelBatchSize(8, (1, 2, 4, 8, 16)).chunks(23)]
    assert sizes == [8, 8, 4, 2, 1]
