"""One conformance suite over ENGINES and an engine of a user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_lm import build_model, copy_weights, save
from toy_engines import GROUPING

from fitness.engines import ENGINES, EngineKind, EngineSpec, check_settings
from fitness.engines.base import (
    AppliesAdapters,
    Engine,
    InstallError,
    MeasuresInfluence,
    NonFiniteOutputError,
    PreparedRequests,
    RequestError,
    RunsModelBatches,
    RunsPaths,
)
from fitness.requests import Call, Generate, LogLikelihood, RollingLogLikelihood
from operators.tensors.weights import Stack, Weights, weights_of

REQUESTS = {
    LogLikelihood: (LogLikelihood("a+b", "c", end=True), LogLikelihood("", "hello")),
    RollingLogLikelihood: (RollingLogLikelihood("hello"), RollingLogLikelihood("a")),
    Generate: (Generate("a", 3), Generate("hello", 2)),
    Call: (Call("toys:nearness", "dev"), Call("toys:nearness", "test")),
}


@dataclass(frozen=True)
class Case:
    """What the suite must know of an engine: its settings, a base to load, and weights by seed."""

    settings: dict[str, str]
    write_base: Callable[[Path], Path]
    weights: Callable[[int], Weights]


def points(seed: int) -> Weights:
    return weights_of({"x": torch.randn(4, generator=torch.Generator().manual_seed(seed))})


MODULES = Case({"build": "toys:build"}, lambda folder: folder, points)
LANGUAGE = Case(
    {},
    lambda folder: save(folder, build_model("llama")),
    lambda seed: copy_weights(build_model("llama", seed=seed)),
)
CASES = {"hf": LANGUAGE, "module": MODULES, "grouping": MODULES}  # an engine needs a line here
KINDS = {**ENGINES, GROUPING.name: GROUPING}
Made = tuple[EngineKind, Engine, Case]


@pytest.fixture(params=KINDS, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    kind, case = KINDS[request.param], CASES[request.param]
    name = kind.name if kind.name in ENGINES else "toy_engines:GROUPING"
    spec = EngineSpec(kind=name, **case.settings)
    assert check_settings(spec) is kind
    return kind, kind.make(spec, case.write_base(tmp_path_factory.mktemp(kind.name))), case


def requests_of(kind: EngineKind) -> list:
    return [r for each in REQUESTS if each in kind.requests for r in REQUESTS[each]]


def test_what_an_engine_can_do_is_what_its_kind_says(made: Made) -> None:
    kind, engine, _ = made
    assert isinstance(engine, Engine)
    assert isinstance(engine, RunsPaths) == kind.paths
    assert isinstance(engine, MeasuresInfluence) == kind.influence
    assert isinstance(engine, AppliesAdapters) == kind.adapters
    assert isinstance(engine, RunsModelBatches) == kind.model_batches


def test_answers_follow_the_installed_weights_and_the_order_of_requests(made: Made) -> None:
    kind, engine, case = made
    requests = requests_of(kind)
    prepared = engine.prepare(requests)
    assert prepared.count == len(requests)
    engine.install(case.weights(1))
    first = engine.answer(prepared)
    assert engine.answer(prepared) == first
    backwards = engine.prepare(requests[::-1])
    assert len(engine.answer(backwards)) == len(first)
    assert [type(o) for o in engine.answer(backwards)] == [type(o) for o in first[::-1]]
    engine.install(case.weights(2))
    assert engine.answer(prepared) != first
    engine.install(case.weights(1))
    assert engine.answer(prepared) == first


def test_requests_of_other_kinds_are_refused(made: Made) -> None:
    kind, engine, _ = made
    for each, (example, _) in REQUESTS.items():
        if each not in kind.requests:
            with pytest.raises(RequestError, match="request 0"):
                engine.prepare([example])


def test_requests_that_another_engine_prepared_are_refused(made: Made) -> None:
    _, engine, _ = made
    with pytest.raises(RequestError, match="prepare"):
        engine.answer(PreparedRequests(1))


def test_weights_that_lack_a_tensor_are_refused(made: Made) -> None:
    _, engine, case = made
    with pytest.raises(InstallError):
        engine.install(weights_of({"other": next(iter(case.weights(1).tensors.values()))}))


def test_weights_that_are_not_finite_fail(made: Made) -> None:
    kind, engine, case = made
    prepared = engine.prepare(requests_of(kind))
    tensors = case.weights(1).tensors
    engine.install(weights_of({n: torch.full_like(t, float("nan")) for n, t in tensors.items()}))
    with pytest.raises(NonFiniteOutputError):
        engine.answer(prepared)


def test_a_model_batch_gives_the_answers_of_each_individual_alone(made: Made) -> None:
    kind, engine, case = made
    if not isinstance(engine, RunsModelBatches):
        pytest.skip(f"{kind.name} runs one individual at a time")
    prepared = engine.prepare(requests_of(kind))
    assert engine.model_batch_size([prepared]) >= 1
    individuals = [case.weights(seed) for seed in (1, 2, 3)]
    alone = []
    for weights in individuals:
        engine.install(weights)
        alone.append(engine.answer(prepared))
    layout = individuals[0].layout
    stacked = {n: torch.stack([w[n] for w in individuals]) for n in layout.names}
    assert engine.answer_many(Stack(layout, stacked, 3), prepared) == alone
