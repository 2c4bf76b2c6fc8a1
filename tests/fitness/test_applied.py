"""``engine.adapters: apply``: individuals as factors on one base, alone and in one pass."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_requests import PAIRS, REQUESTS
from lora_models import ALL, make_adapter
from tiny_lm import CHARACTERS, build_model, copy_weights, model_of, save
from torch.nn.modules.module import register_module_forward_hook
from warm_evo import evo as evo_command

from cluster.founders.adapters import adapter_digest
from cluster.founders.checkpoints import FounderSet, digest_of, load_founders, map_founders
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec, Job, Query
from evo.reproduce.rebuild import rebuild
from fitness.engines.base import EngineError, NonFiniteOutputError
from fitness.engines.hf.engine import HFEngine
from fitness.requests import Generate, LogLikelihoodOutput, RollingLogLikelihood
from operators.recipe import Noise, Recipe, linear
from operators.tensors.low_rank import Adapted, Factors

CONV = ["c_attn", "c_proj", "c_fc"]
KINDS = {
    "llama": [{}, {"r": 3, "use_rslora": True, "target_modules": ALL}, {"r": 8}],
    "embedding": [
        {"target_modules": ["embed_tokens", "lm_head", "o_proj"], "r": r} for r in (2, 3, 4)
    ],
    "gpt2": [{"target_modules": CONV, "fan_in_fan_out": True, "r": r} for r in (2, 3, 4)],
}


@pytest.fixture(scope="module", params=KINDS)
def founders(request: Any, tmp_path_factory: pytest.TempPathFactory) -> FounderSet:
    """Three adapters of one base: of other ranks, for some of other modules."""
    folder = tmp_path_factory.mktemp(request.param)
    base = save(folder / "base", build_model("gpt2" if request.param == "gpt2" else "llama"))
    return load_founders(
        base,
        {
            f"a{i}": make_adapter(base, folder / f"a{i}", i, **settings)
            for i, settings in enumerate(KINDS[request.param])
        },
    )


def mixtures(founders: FounderSet, count: int = 7) -> list[Recipe]:
    """Founders, and children near and between them: of several ranks."""
    base, (a, b, c) = founders.base.founder, (f.founder for f in founders.founders)
    made: list[Recipe] = [a, b, c, linear({a: 0.5, b: 0.5})]
    made += [linear({base: 1 - i / 9, a: i / 9 - 0.1, c: 0.1}) for i in range(2, 9)]
    return made[:count]


def builder_of(founders: FounderSet, adapters: Any = "apply", dtype: str = "") -> Builder:
    return Builder(founders.base, founders.founders, adapters=adapters, dtype=dtype)


def answers(engine: HFEngine, individuals: list[Any], prepared: Any) -> list[Any]:
    found = []
    for individual in individuals:
        if isinstance(individual, Adapted):
            engine.install_adapted(individual)
        else:
            engine.install(individual)
        found.append(engine.answer(prepared))
    return found


@contextmanager
def forward_calls() -> Iterator[Counter[type]]:
    """Counts the calls of modules by class: a group of individuals needs fewer than each alone."""
    count: Counter[type] = Counter()
    hook = register_module_forward_hook(lambda module, *_: count.update([type(module)]))
    try:
        yield count
    finally:
        hook.remove()


def test_applied_is_merged_to_rounding(founders: FounderSet) -> None:
    engine = HFEngine(founders.base.path)
    prepared = engine.prepare([*PAIRS, RollingLogLikelihood("some text " * 8), Generate("12=", 5)])
    applied, merged = builder_of(founders), builder_of(founders, "merge")
    for recipe in mixtures(founders):
        (mine,) = answers(engine, [applied.build(recipe)], prepared)
        (other,) = answers(engine, [merged.build(recipe)], prepared)
        assert mine[-1] == other[-1]
        for x, y in zip(mine[:-1], other[:-1], strict=True):
            assert x.logprob == pytest.approx(y.logprob, rel=1e-5, abs=1e-4)
            assert not isinstance(x, LogLikelihoodOutput) or x.greedy == y.greedy


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_a_group_gives_everyone_their_own_answers(founders: FounderSet, dtype: str) -> None:
    engine = HFEngine(founders.base.path, dtype=torch.bfloat16 if dtype else None)
    prepared = engine.prepare(REQUESTS)
    builder = builder_of(founders, dtype=dtype)
    individuals = [builder.build(recipe) for recipe in mixtures(founders, 11)]
    assert all(isinstance(each, Adapted) for each in individuals)
    found = engine.answer_many(individuals, prepared)
    with forward_calls() as alone:
        assert found == answers(engine, individuals, prepared)
    assert len({str(each) for each in found}) == len(individuals)
    with forward_calls() as together:
        assert found == engine.answer_many(individuals, prepared)
    assert together.total() < alone.total() / 2


@pytest.mark.usefixtures("eager")
def test_factors_that_were_not_there_to_measure_have_the_same_bits_in_company(
    tmp_path: Path,
) -> None:
    # An odd vocabulary: the logits of most individuals of a pass begin beside a cache line.
    model = model_of("llama", vocab_size=len(CHARACTERS) + 103)
    engine = HFEngine(save(tmp_path, model))
    prepared = engine.prepare(REQUESTS)
    base = copy_weights(engine.model)
    matrices = [spec for spec in base.layout if len(spec.shape) == 2]
    torch.manual_seed(0)

    def individual(rank: int, every: int) -> Adapted:
        of = {
            s.name: Factors(torch.randn(s.shape[0], rank), torch.randn(rank, s.shape[1]) / 20)
            for s in matrices[::every]
        }
        return Adapted(base, of)

    engine.answer_many([individual(4, 2) for _ in range(16)], prepared)
    others = [individual(rank, every) for rank in (1, 3, 7, 8, 17, 24, 40) for every in (1, 2, 3)]
    with forward_calls() as together:
        found = engine.answer_many(others, prepared)
    with forward_calls() as alone:
        assert found == answers(engine, others, prepared)
    assert together.total() < alone.total()


@pytest.mark.usefixtures("eager")
def test_an_individual_of_nan_fails_alone(founders: FounderSet) -> None:
    engine = HFEngine(founders.base.path)
    prepared = engine.prepare(PAIRS)
    builder = builder_of(founders)
    a, b, c = (builder.build(recipe) for recipe in mixtures(founders, 3))
    assert isinstance(b, Adapted)
    bad = {n: Factors(f.b * float("nan"), f.a) for n, f in b.factors.items()}
    engine.answer_many([a, b, c], prepared)  # measures with those that are well
    found = engine.answer_many([a, Adapted(b.base, bad), c], prepared)
    assert isinstance(found[1], NonFiniteOutputError)
    assert [found[0], found[2]] == answers(engine, [a, c], prepared)


def test_tokens_of_a_group_are_counted_for_each(founders: FounderSet) -> None:
    base, a = founders.base.founder, founders.founders[0].founder
    far = [linear({base: 1.0 - 2 * i, a: 2.0 * i}) for i in range(1, 7)]  # who end at other places
    scored, written = Query("t", "dev"), Query("t", "test")
    spec = HostSpec(
        founders.base,
        founders.founders,
        EngineSpec(adapters="apply"),
        {scored: tuple(PAIRS), written: tuple(Generate(p, 20, ("a", "\n")) for p in ("1", "z="))},
    )
    jobs = [Job(r, queries) for queries in ((scored,), (scored, written)) for r in far]
    alone, together = ModelHost(spec), ModelHost(spec)
    found = [answer.execution.tokens for answer in together.run_all(jobs)]
    assert found == [alone.run(job).execution.tokens for job in jobs]
    assert len(set(found)) > 2


def test_factors_and_weights_take_turns(founders: FounderSet) -> None:
    engine = HFEngine(founders.base.path)
    prepared = engine.prepare([*PAIRS, Generate("12=", 5)])
    applied, merged = builder_of(founders), builder_of(founders, "merge")
    a, b, *_ = mixtures(founders)
    first = applied.build(a), merged.build(b)
    once = answers(engine, list(first), prepared)
    assert answers(engine, [*first, *first], prepared) == once + once
    whole = merged.build(founders.base.founder)
    assert answers(engine, [whole, first[0]], prepared)[1] == once[0]


def test_what_is_no_change_of_low_rank_is_merged(founders: FounderSet) -> None:
    applied, merged = builder_of(founders), builder_of(founders, "merge")
    base, a = founders.base.founder, founders.founders[0].founder
    for recipe in (base, linear({a: 1.0, Noise(3): 0.01}), linear({a: 0.5})):
        assert applied.adapted(recipe) is None
        assert applied.digest(applied.build(recipe)) == merged.digest(merged.build(recipe))


def test_a_digest_is_of_the_factors(founders: FounderSet) -> None:
    builder = builder_of(founders)
    recipes = mixtures(founders)
    digests = [builder.digest(builder.build(recipe)) for recipe in recipes]
    assert len(set(digests)) == len(recipes)
    assert digests == [builder_of(founders).digest(builder.build(recipe)) for recipe in recipes]
    mapped = map_founders(founders.all_files())[founders.founders[0].founder]
    assert digests[0] == adapter_digest(mapped)


def test_a_change_that_no_matrix_takes_is_refused(founders: FounderSet) -> None:
    engine = HFEngine(founders.base.path)
    base = builder_of(founders).build(founders.base.founder)
    norm = next(s for s in base.layout if len(s.shape) == 1 and s.name.endswith("weight"))
    change = Factors(torch.ones(*norm.shape, 1), torch.ones(1, 1))
    with pytest.raises(EngineError, match=r"merge"):
        engine.install_adapted(Adapted(base, {norm.name: change}))


# The command line


def evo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return evo_command(*arguments, cwd=folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run in ``run``, whose individuals were applied."""
    folder = tmp_path_factory.mktemp("run")
    base = save(folder / "base", build_model("llama"))
    names = [make_adapter(base, folder / f"a{i}", i, r=2 + i).name for i in range(3)]
    rows = [{"prompt": f"{i} = ", "choices": ["a", "b", "c"], "label": i % 3} for i in range(12)]
    (folder / "t.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "base": "base",
        "founders": names,
        "tasks": [{"name": "t", "files": "t", "metric": "accuracy"}],
        "budget": {"evaluations": 16},
        "engine": {"adapters": "apply"},
        "pool": {"kind": "local"},
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    done = evo(folder, "run", "run.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_of_applied_adapters_verifies(run: Path) -> None:
    done = evo(run, "verify", "run", "--all")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_applied_individual_is_rebuilt_and_exported(run: Path) -> None:
    rebuilt = rebuild(run / "run", "best")
    assert rebuilt.same
    assert rebuilt.digest != digest_of(rebuilt.weights)  # it was of factors
    done = evo(run, "export", "run", "best", "--out", "whole")
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    exported = load_file(run / "whole" / "model.safetensors")
    assert all(torch.equal(exported[n], t) for n, t in rebuilt.weights.tensors.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"founders": {"x": "base", "y": "merged"}}, "none a LoRA adapter"),
        ({"engine": {"adapters": "fold"}}, "'merge' or 'apply'"),
        ({"engine": {"adapters": "apply", "kind": "module", "build": "a:b"}}, "language model"),
    ],
)
def test_a_config_that_can_not_apply_is_refused(
    changes: dict[str, Any], said: str, run: Path
) -> None:
    if not (run / "merged").is_dir():
        save(run / "merged", build_model("llama", seed=1))
    config = json.loads((run / "run.yaml").read_text()) | changes
    (run / "other.yaml").write_text(json.dumps(config))
    done = evo(run, "run", "other.yaml", "--run-dir", "other")
    assert done.returncode == 2
    assert said in done.stderr
