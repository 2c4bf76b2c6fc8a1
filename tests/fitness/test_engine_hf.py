"""The transformers engine against one-by-one references, on real tiny models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_requests import PAIRS
from tiny_lm import (
    CHARACTERS,
    CONTEXT,
    KINDS,
    build_engine,
    build_model,
    build_tokenizer,
    copy_weights,
    save,
)

from fitness.engines.base import EngineError, InstallError, NonFiniteOutputError, RequestError
from fitness.engines.hf.engine import HFEngine
from fitness.requests import (
    Call,
    Generate,
    LogLikelihood,
    LogLikelihoodOutput,
    Request,
    RollingLogLikelihood,
    RollingOutput,
)
from operators.tensors.weights import Weights, allocate, weights_of


def ids_of(text: str) -> list[int]:
    return [4 + CHARACTERS.index(c) for c in text]


def reference(engine: HFEngine, before: list[int], after: list[int]) -> LogLikelihoodOutput:
    """In float64, one sequence at a time and unpadded."""
    model = engine.model.double()
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    picked = logits.log_softmax(-1)[range(len(after)), after]
    greedy = logits.argmax(-1).tolist() == after
    return LogLikelihoodOutput(float(picked.sum()), greedy, len(after))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_equal_the_reference(kind: str, bos: bool, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind, bos=bos)
    outputs = engine.answer(engine.prepare(PAIRS))
    for request, output in zip(PAIRS, outputs, strict=True):
        kept = request.context.rstrip(" ")
        before = ids_of(kept)
        if bos or not before:
            before = [1, *before]
        after = ids_of(request.context[len(kept) :] + request.continuation) + [2] * request.end
        expected = reference(engine, before, after)
        assert isinstance(output, LogLikelihoodOutput)
        assert output.logprob == pytest.approx(expected.logprob, abs=2e-4)
        assert (output.greedy, output.tokens) == (expected.greedy, expected.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_true_for_what_the_model_would_say(kind: str, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind)
    (said,) = engine.answer(engine.prepare([Generate("12=", 6)]))
    assert isinstance(said, str)
    said = said or "a"
    other = ("b" if said[0] == "a" else "a") + said[1:]
    right, wrong = engine.answer(
        engine.prepare([LogLikelihood("12=", said), LogLikelihood("12=", other)])
    )
    assert isinstance(right, LogLikelihoodOutput)
    assert isinstance(wrong, LogLikelihoodOutput)
    assert not wrong.greedy
    assert right.logprob > wrong.logprob


def test_batches_do_not_change_answers_and_equal_requests_give_equal_bits(tmp_path: Path) -> None:
    save(tmp_path, build_model("llama"))
    requests: list[Request] = [LogLikelihood("a" * (1 + i % 17), "bcd") for i in range(60)]
    requests += [RollingLogLikelihood("xyz " * (1 + i)) for i in range(20)]
    one = HFEngine(tmp_path)
    few = HFEngine(tmp_path, batch_tokens=100)
    prepared = one.prepare(requests)
    answers = one.answer(prepared)
    assert one.answer(prepared) == answers
    assert one.answer(one.prepare(requests)) == answers
    for other in (
        few.answer(few.prepare(requests)),
        one.answer(one.prepare(requests[::-1]))[::-1],
        [one.answer(one.prepare([r]))[0] for r in requests],
    ):
        for a, b in zip(answers, other, strict=True):
            assert isinstance(a, LogLikelihoodOutput | RollingOutput)
            assert isinstance(b, LogLikelihoodOutput | RollingOutput)
            assert a.tokens == b.tokens
            assert a.logprob == pytest.approx(b.logprob, abs=1e-5 * max(1, a.tokens))


@pytest.mark.parametrize("length", [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT, 131])
def test_rolling_scores_each_token_once_with_all_the_context_that_fits(
    length: int, tmp_path: Path
) -> None:
    engine = build_engine(tmp_path)
    text = "".join(CHARACTERS[(7 * i + i // 5) % len(CHARACTERS)] for i in range(length))
    (output,) = engine.answer(engine.prepare([RollingLogLikelihood(text)]))
    ids = [1, *ids_of(text)]
    expected, done = 0.0, 0
    while done < length:
        end = min(done + CONTEXT, length)
        window = ids[max(0, end - CONTEXT) : end + 1]
        fresh = end - done
        expected += reference(engine, window[:-fresh], window[-fresh:]).logprob
        done = end
    assert isinstance(output, RollingOutput)
    assert output.tokens == length
    assert output.logprob == pytest.approx(expected, abs=1e-3)


def test_generation_in_a_batch_equals_generation_alone(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)
    requests = [Generate("ab" * (1 + i), 3 + i % 5) for i in range(12)]
    together = engine.answer(engine.prepare(requests))
    alone = [engine.answer(engine.prepare([r]))[0] for r in requests]
    assert together == alone
    assert all(len(str(t)) <= r.max_tokens * 6 for t, r in zip(together, requests, strict=True))


def test_generated_text_ends_before_the_first_stop_string(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)
    (full,) = engine.answer(engine.prepare([Generate("12=", 12)]))
    assert isinstance(full, str)
    assert len(full) >= 4
    stop = full[2:4]
    cut, free = engine.answer(
        engine.prepare([Generate("12=", 12, stop=("~", stop)), Generate("12=", 12)])
    )
    assert cut == full[: full.index(stop)]
    assert free == full


def test_sampling_repeats_by_seed_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)

    def sample(seed: int) -> list[Any]:
        requests = [Generate(f"{i}=", 8, temperature=1.5, seed=seed) for i in range(6)]
        return engine.answer(engine.prepare(requests))

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sample(1)
    assert torch.equal(torch.rand(3), expected)
    assert sample(1) == first
    assert sample(2) != first
    greedy = engine.answer(engine.prepare([Generate("1=", 8)]))
    mixed = engine.prepare([Generate("1=", 8), Generate("1=", 8, temperature=1.5, seed=1)])
    assert engine.answer(mixed)[0] == greedy[0]


def test_generation_ignores_the_checkpoints_own_generation_settings(tmp_path: Path) -> None:
    plain = build_engine(tmp_path / "plain")
    model = build_model("llama")
    model.generation_config.update(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, max_length=4
    )
    odd = HFEngine(save(tmp_path / "odd", model))
    requests = [Generate("abc", 10)]
    assert odd.answer(odd.prepare(requests)) == plain.answer(plain.prepare(requests))


# --- installing --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_installed_weights_answer_as_the_checkpoint_they_come_from(
    kind: str, tmp_path: Path
) -> None:
    engine = build_engine(tmp_path / "a", kind)
    other = build_model(kind, seed=1)
    expected_engine = HFEngine(save(tmp_path / "b", other))
    before = engine.answer(engine.prepare(PAIRS))
    expected = expected_engine.answer(expected_engine.prepare(PAIRS))
    assert before != expected
    engine.install(copy_weights(other))
    assert engine.answer(engine.prepare(PAIRS)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_installed_tensors_are_used_in_place(kind: str, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind)
    source = copy_weights(engine.model)
    weights = allocate(source.layout)
    for name, tensor in weights.tensors.items():
        tensor.copy_(source[name])
    engine.install(weights)
    addresses = {t.data_ptr() for t in weights.tensors.values()}
    assert {p.data_ptr() for p in engine.model.parameters()} == addresses
    prepared = engine.prepare(PAIRS)
    before = engine.answer(prepared)
    for tensor in weights.tensors.values():
        saved = tensor.clone()
        tensor.add_(torch.linspace(-0.5, 0.5, tensor.numel()).view_as(tensor))
        if "k_proj.bias" not in next(n for n, t in weights.tensors.items() if t is tensor):
            assert engine.answer(prepared) != before
        tensor.copy_(saved)
    assert engine.answer(prepared) == before


def test_a_head_tensor_of_a_tied_model_is_used_where_there_is_one(tmp_path: Path) -> None:
    engine = build_engine(tmp_path, "gpt2")
    tied = copy_weights(engine.model)
    (embedding,) = (n for n in tied.layout.names if n.endswith("wte.weight"))
    prepared = engine.prepare(PAIRS)
    before = engine.answer(prepared)
    both = weights_of({**tied.tensors, "lm_head.weight": tied[embedding].clone()})
    engine.install(both)
    assert engine.answer(prepared) == before
    head_only = {n: t for n, t in both.tensors.items() if n != embedding}
    engine.install(weights_of(head_only))
    assert engine.answer(prepared) == before
    both["lm_head.weight"].mul_(0.5)
    engine.install(both)
    assert engine.answer(prepared) != before


@pytest.mark.parametrize("kind", KINDS)
def test_names_without_the_base_models_prefix_are_understood(kind: str, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind)
    prepared = engine.prepare(PAIRS)
    before = engine.answer(prepared)
    prefix = engine.model.base_model_prefix + "."
    bare = {n.removeprefix(prefix): t for n, t in copy_weights(engine.model).tensors.items()}
    engine.install(weights_of(bare))
    assert engine.answer(prepared) == before


def without(weights: Weights, name: str) -> Weights:
    return weights_of({n: t for n, t in weights.tensors.items() if n != name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "lm_head.weight"), "no tensor for .*'lm_head.weight'"),
        (
            lambda w: weights_of({**w.tensors, "model.norm.weight": torch.ones(31)}),
            r"'model.norm.weight' is \[31\].* is \[32\]",
        ),
        (
            lambda w: weights_of(
                {**w.tensors, "model.norm.weight": torch.ones(32, dtype=torch.bfloat16)}
            ),
            "bfloat16.*one dtype",
        ),
    ],
    ids=["missing", "shape", "dtype"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: Any, message: str, tmp_path: Path
) -> None:
    engine = build_engine(tmp_path)
    with pytest.raises(InstallError, match=message):
        engine.install(change(copy_weights(engine.model)))


def test_weights_of_another_dtype_run_in_it(tmp_path: Path) -> None:
    engine = build_engine(tmp_path)
    half = {n: t.bfloat16() for n, t in copy_weights(engine.model).tensors.items()}
    engine.install(weights_of(half))
    prepared = engine.prepare([*PAIRS, Generate("1=", 3)])
    assert engine.answer(prepared) == engine.answer(prepared)


@pytest.mark.parametrize("request_", [PAIRS[0], RollingLogLikelihood("abc"), Generate("abc", 4)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_fail_instead_of_scoring_zero(
    value: float, request_: Request, tmp_path: Path
) -> None:
    engine = build_engine(tmp_path)
    weights = copy_weights(engine.model)
    weights["model.norm.weight"][3] = value
    engine.install(weights)
    prepared = engine.prepare([request_])
    with pytest.raises(NonFiniteOutputError, match="not finite"):
        engine.answer(prepared)


# --- chat, and what is refused -------------------------------------------------------------------


def test_chat_goes_through_the_template_and_keeps_its_last_newline(tmp_path: Path) -> None:
    engine = build_engine(tmp_path, chat=True, bos=True)
    chat, by_hand, said = engine.answer(
        engine.prepare(
            [
                LogLikelihood("hi", "yo", end=True, chat=True),
                LogLikelihood("<hi>\n", "yo", end=True),
                Generate("hi", 5, chat=True),
            ]
        )
    )
    assert isinstance(chat, LogLikelihoodOutput)
    assert isinstance(by_hand, LogLikelihoodOutput)
    expected = reference(engine, ids_of("<hi>\n"), [*ids_of("yo"), 2])
    assert chat.logprob == pytest.approx(expected.logprob, abs=2e-4)
    assert chat.logprob != by_hand.logprob  # the template decides on <s>, and this one has none
    with torch.no_grad():
        out = engine.model.generate(
            torch.tensor([ids_of("<hi>\n")]), max_new_tokens=5, do_sample=False, eos_token_id=2
        )
    assert said == engine.tokenizer.decode([i for i in out[0, 5:].tolist() if i != 2])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (LogLikelihood("a" * 45, "b" * 5), "request 1 .*45 tokens of context and 5 .*48 positions"),
        (Generate("a" * 40, 10), "request 1 .*40 tokens and 10 .*48 positions"),
        (Generate("a", 0), "request 1: max_tokens must be at least 1"),
        (LogLikelihood("a", ""), "request 1 has an empty continuation"),
        (RollingLogLikelihood(""), "request 1 has no text"),
        (LogLikelihood("a", "b", chat=True), "request 1 .*no.*chat"),
        (Call("a.b:c", "d"), "request 1 calls 'a.b:c'"),
    ],
)
def test_requests_that_cannot_be_answered_are_named(
    request_: Request, message: str, tmp_path: Path
) -> None:
    engine = build_engine(tmp_path)
    with pytest.raises(RequestError, match=f"(?s){message}|{message.replace('chat', 'template')}"):
        engine.prepare([LogLikelihood("a", "b"), request_])


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_of_just_the_context_is_answered(kind: str, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind)
    requests = [LogLikelihood("a" * 45, "b" * 4), Generate("a" * 40, 9)]
    assert len(engine.answer(engine.prepare(requests))) == 2
    assert engine.answer(engine.prepare([])) == []


def test_requests_prepared_by_another_engine_are_refused(tmp_path: Path) -> None:
    save(tmp_path, build_model("llama"))
    one, other = HFEngine(tmp_path), HFEngine(tmp_path)
    with pytest.raises(RequestError, match="another engine"):
        one.answer(other.prepare(PAIRS))


def test_folders_that_hold_no_whole_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no config\.json"):
        HFEngine(tmp_path / "nothing")
    model = build_model("llama")
    state = {n: t for n, t in model.state_dict().items() if "layers.1.mlp" not in n}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    build_tokenizer().save_pretrained(tmp_path / "part")
    with pytest.raises(EngineError, match="lacks 3 of its model's tensors"):
        HFEngine(tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").rename(tmp_path / "part" / "pytorch_model.bin")
    with pytest.raises(EngineError, match="cannot load"):
        HFEngine(tmp_path / "part")
