"""Shared beginnings are read once, and what is answered is what ordinary rows answer."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import CHARACTERS, build_engine, build_model, copy_weights, model_of, save

import fitness.engines.hf.scores
from fitness.engines.hf.engine import HFEngine
from fitness.engines.hf.rows.branching import BRANCHING, takes_branches
from fitness.engines.hf.rows.prefixes import ScoredRow, Tree, branching, chains
from fitness.engines.hf.scores import read, token_scores
from fitness.requests import LogLikelihood, LogLikelihoodOutput, Request, RollingLogLikelihood
from operators.build.architectures import architecture_of
from operators.build.paths import LayerPath
from operators.tensors.weights import weights_of

TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=9)


def sequence(tree: Tree, node: int) -> list[int]:
    """The tokens of a node and of all before it, found by ``ends`` alone."""
    return [int(tree.ids[a]) for a in range(node + 1) if node < tree.ends[a]]


@given(st.lists(TOKENS, min_size=1, max_size=12), st.data())
@settings(max_examples=150, deadline=None)
def test_trees_hold_every_row_once_and_each_beginning_once(texts: Any, data: Any) -> None:
    rows = [
        ScoredRow(i, ids, data.draw(st.integers(1, len(ids) - 1))) for i, ids in enumerate(texts)
    ]
    most = data.draw(st.integers(1, 60))
    for trees in (chains(rows), branching(rows, width=50.0, most=most)):
        assert sorted(r.request for t in trees for r in t.rows) == list(range(len(rows)))
        for tree in trees:
            assert tree.nodes <= most or not tree.branches
            assert len({tuple(sequence(tree, n)) for n in range(tree.nodes)}) == tree.nodes
            reads = [0] * tree.nodes
            for row, places in zip(tree.rows, tree.places, strict=True):
                whole = sequence(tree, int(places[-1]))
                assert whole == row.ids[:-1]
                assert [len(sequence(tree, int(p))) for p in places] == list(
                    range(row.length - row.count + 1, row.length + 1)
                )
                for node in range(int(places[-1]) + 1):
                    reads[node] += int(places[-1] < tree.ends[node])
            assert tree.reads.tolist() == reads
            assert tree.depths.tolist() == [len(sequence(tree, n)) - 1 for n in range(tree.nodes)]
    read = {tuple(ids[:-1]) for ids in texts}
    covered = {a for a in read for b in read if a != b and b[: len(a)] == a}
    assert len(chains(rows)) == len(read - covered)


def test_rows_are_joined_where_that_takes_the_least_work() -> None:
    def few_shot(shared: int, own: int) -> list[ScoredRow]:
        return [ScoredRow(i, [0] * shared + [i + 1] * own + [9], 1) for i in range(400)]

    for width in (200.0, 2000.0):
        trees = branching(few_shot(500, 20), width=width, most=10**6)
        # n + n²/w a tree of n = 500 + 20m, for each of its m rows: least at 20m = sqrt(500·(500 + w)).
        assert len(trees[0].rows) == pytest.approx((500 * (500 + width)) ** 0.5 / 20, rel=0.1)
    assert all(t.nodes <= 700 for t in branching(few_shot(500, 20), width=1e9, most=700))
    # What saves less than a fifth stays as it is.
    assert not any(t.branches for t in branching(few_shot(5, 50), width=1e9, most=10**6))


# --- the same answers ----------------------------------------------------------------------------


def texts(seed: int = 0) -> list[Request]:
    """Choices of one letter and of several, few-shot prompts, duplicates, and a text."""
    rng = random.Random(seed)

    def letters(count: int) -> str:
        return "".join(rng.choices("abcdefgh", k=count))

    questions = [letters(rng.randint(8, 20)) for _ in range(8)]
    asked: list[Request] = [LogLikelihood(q, c) for q in questions[:4] for c in "abcd"]
    asked += [LogLikelihood(q, letters(k)) for q in questions[4:] for k in (1, 2, 3, 5)]
    asked += [LogLikelihood("shots: " + questions[0] + q, letters(2), end=True) for q in questions]
    asked += [LogLikelihood(questions[0], "a"), RollingLogLikelihood(letters(30))]
    rng.shuffle(asked)
    return asked


def plainly(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> HFEngine:
    """An engine that reads each row by itself."""
    engine = HFEngine(path, **options)
    monkeypatch.setattr(
        fitness.engines.hf.engine,
        "token_trees",
        lambda rows, *_, **__: [t for r in rows for t in chains([r])],
    )
    return engine


def assert_equal_answers(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5 * max(1.0, other.tokens))
        if isinstance(one, LogLikelihoodOutput):
            assert one.greedy == other.greedy


@pytest.mark.parametrize("batch_tokens", [64, 4096])
@pytest.mark.parametrize("kind", BRANCHING)
def test_trees_answer_as_rows_do(
    kind: str, batch_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, model_of(kind))
    engine = HFEngine(path, batch_tokens=batch_tokens)
    prepared = engine.prepare(texts())
    found = engine.answer(prepared)
    assert engine.answer(engine.prepare(texts())) == found
    assert any(b.branching is not None for b in prepared.scored)
    plain = plainly(path, monkeypatch)
    assert_equal_answers(found, plain.answer(plain.prepare(texts())))
    assert engine.tokens is not None
    assert plain.tokens is not None
    assert engine.tokens / 2 < 0.6 * plain.tokens


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_paths_and_influence_read_trees_too(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, build_model(kind))
    engine = HFEngine(tmp_path)
    plain = plainly(tmp_path, monkeypatch)
    path = path_of(engine)
    plain_prepared = plain.prepare(texts())
    monkeypatch.undo()
    prepared = engine.prepare(texts())
    assert any(b.branching is not None for b in prepared.scored)
    assert engine.influence(prepared) == pytest.approx(plain.influence(plain_prepared), abs=1e-6)
    for each in (engine, plain):
        each.install_path(path)
    assert_equal_answers(engine.answer(prepared), plain.answer(plain_prepared))


def test_choices_of_one_token_read_their_question_once(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)
    asked = [LogLikelihood(f"{i} question", c) for i in range(10) for c in "abcd"]
    prepared = engine.prepare(asked)
    assert all(b.branching is None for b in prepared.scored)
    answers = engine.answer(prepared)
    assert engine.tokens == 10 * len("0 question")
    one_by_one = [engine.answer(engine.prepare([r]))[0] for r in asked]
    assert_equal_answers(answers, one_by_one)


def test_logits_that_fill_memory_are_normed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_engine(tmp_path)
    prepared = engine.prepare(texts())
    expected = engine.answer(prepared)
    monkeypatch.setattr(fitness.engines.hf.scores, "_SOFTMAX_ELEMENTS", 7 * (4 + len(CHARACTERS)))
    assert engine.answer(prepared) == expected


def test_rows_that_are_repeated_score_alike_each_time(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)
    batches: Any = engine.prepare(texts())
    assert {b.branching is None for b in batches.scored} == {True, False}
    with torch.inference_mode():
        alone, thrice = (
            read(engine.model, batches.scored, count, keeps_logits=True) for count in (1, 3)
        )
        for one, three in zip(alone, thrice, strict=True):
            (once, _), (repeated, _) = token_scores(*one), token_scores(*three)
            assert torch.allclose(repeated.view(3, -1), once, atol=1e-5)


# --- models that can't ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("mistral", {"sliding_window": 6}),
        ("gemma2", {"sliding_window": 6}),
        ("mamba", {"state_size": 4, "num_hidden_layers": 2}),
        ("bloom", {"n_head": 4, "n_layer": 2}),
    ],
)
def test_other_models_read_rows(
    kind: str, changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, model_of(kind, **changed))
    engine = HFEngine(path)
    prepared = engine.prepare(texts())
    assert all(b.branching is None for b in prepared.scored)
    plain = plainly(path, monkeypatch)
    assert_equal_answers(engine.answer(prepared), plain.answer(plain.prepare(texts())))


def test_a_window_that_no_row_fills_is_no_obstacle(tmp_path: Path) -> None:
    model = model_of("mistral", sliding_window=40)
    assert takes_branches(model, 40)
    assert not takes_branches(model, 41)
    eager = model_of("llama")
    eager.set_attn_implementation("eager")
    assert not takes_branches(eager, 8)


def path_of(engine: HFEngine) -> LayerPath:
    """The model's first layer twice, then its second, with a scale."""
    weights = copy_weights(engine.model)
    architecture = architecture_of(engine.model.config.to_dict())
    of_layer: dict[int, dict[str, torch.Tensor]] = {0: {}, 1: {}}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in weights.tensors.items():
        found = architecture.split(name)
        (of_layer[found[0]] if found else tensors)[found[1] if found else name] = tensor
    for step, layer in enumerate((0, 0, 1)):
        tensors |= {architecture.name(step, rest): t for rest, t in of_layer[layer].items()}
    return LayerPath(weights_of(tensors), (0, 0, 1), (1.0, 0.7, 1.0))
