"""Every individual that ever lived can be built again, bit for bit; and whoever doubts it can check."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from lora_models import square_config
from manifests import change_manifest
from path_runs import run as run_paths
from path_runs import save_model
from safetensors.torch import load_file, save_file
from tiny_lm import build_engine, build_model, save
from toys import toy_config
from vocabularies import SPECIALS, WORDS, union_config
from vocabularies import save as save_words
from warm_evo import evo as evo_command

import evo.lineage
from cluster.founders.checkpoints import FounderFiles, digest_of, load_founders, open_checkpoint
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec, Job, Query
from evo import rebuild
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import commit, commits
from evo.lineage.storage.committed_tables import read_committed
from evo.reproduce.export import export_individual
from evo.reproduce.verify import verify
from evo.run_dir import RunDir
from fitness.requests import Generate, LogLikelihood, RollingLogLikelihood
from operators.recipe import Linear, Merge, Noise, Route, Step, linear, walk
from operators.tensors.weights import Weights, weights_of


def finished(config, run_dir):
    with Evolution(config, run_dir) as evolution:
        for _ in evolution:
            pass
        evolution.finish()
    return evo.lineage.open(run_dir)


def parts_of(lineage):
    ids = lineage.individuals["id"].to_pylist()
    return {type(part) for name in ids for part in walk(lineage.recipe(name))}


def check_all(lineage):
    """Rebuild everyone; what was rebuilt, by id."""
    made = {name: rebuild(lineage, name) for name in lineage.individuals["id"].to_pylist()}
    for name, rebuilt in made.items():
        assert (rebuilt.id, rebuilt.recipe.id) == (name, name)
        assert rebuilt.same is True
        assert rebuilt.recorded == rebuilt.digest
    return made


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """GENOME+ with noise on the weights, where two founders and some of their children fail."""
    folder = tmp_path_factory.mktemp("toys")
    data = {s: s for s in ("dev", "select", "test")}
    task = {"name": "toy", "metric": "toys:nearness_if_b", "data": data}
    config = toy_config(
        folder / "f", algorithm={"name": "genome_plus"}, tasks=[task], budget={"evaluations": 40}
    )
    return finished(config, folder / "run").run_dir


@pytest.fixture
def copy(toy_run, tmp_path):
    """The run with founders of its own, to do harm to."""
    shutil.copytree(toy_run.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / "config.json"
    path.write_text(path.read_text().replace(str(toy_run.parent), str(tmp_path / "copy")))
    return tmp_path / "copy" / "run"


def rewrite(run_dir, table, change):
    """Change rows of the first commit, and the commit with it: nothing in the files gives it away."""
    folder = run_dir / "lineage"
    entry = commits(folder)[0]
    tables = {name: read_committed(folder, entry, name) for name in entry.files}
    rows = tables[table].to_pylist()
    change(rows)
    tables[table] = tables[table].from_pylist(rows, schema=SCHEMAS[table])
    commit(folder, entry.name, tables)


def test_all_of_a_run_are_rebuilt_the_dead_and_the_failed_too(toy_run):
    lineage = evo.lineage.open(toy_run)
    made = check_all(lineage)
    last = pc.max(lineage.population["generation"]).as_py()
    alive = lineage.population.filter(pc.field("generation") == last)["individual"].to_pylist()
    assert made.keys() - set(alive)
    failed = lineage.evaluations.filter(pc.field("status") == "failed")
    assert failed.num_rows
    assert failed["weights"].null_count == 0
    assert {Noise, Linear} <= parts_of(lineage)
    assert rebuild(lineage, "best").id == lineage.best()
    assert rebuild(toy_run, lineage.best()[:20]).digest == rebuild(lineage, "best").digest


def test_what_is_rebuilt_are_the_weights_by_the_recipe(toy_run):
    lineage = evo.lineage.open(toy_run)
    founders = {n: load_file(toy_run.parent / "f" / f"{n}.safetensors")["x"] for n in "abc"}
    seen = 0
    for rebuilt in check_all(lineage).values():
        if isinstance(rebuilt.recipe, Linear) and not any(
            isinstance(r, Noise) for r, _ in rebuilt.recipe.terms
        ):
            by_hand = sum(c * founders[r.name] for r, c in rebuilt.recipe.terms)
            assert torch.allclose(rebuilt.weights["x"], by_hand, atol=1e-6)
            seen += 1
    assert seen


def test_an_individual_has_the_same_digest_on_every_split(toy_run):
    rows = evo.lineage.open(toy_run).evaluations.to_pylist()
    splits = {r["split"] for r in rows}
    assert splits == {"dev", "select", "test"}
    digests = {}
    for row in rows:
        digests.setdefault(row["individual"], set()).add(row["weights"])
    assert all(len(found) == 1 for found in digests.values())
    assert len(set.union(*digests.values())) > 10


def test_a_founder_that_changed_is_refused_by_name(copy):
    lineage = evo.lineage.open(copy)
    ids = {r["description"]: r["id"] for r in lineage.individuals.to_pylist()}
    path = copy.parent / "f" / "b.safetensors"
    save_file({"x": load_file(path)["x"] + torch.tensor([1e-7, 0.0, 0.0, 0.0])}, path)
    with pytest.raises(EvoError, match=r"b\.safetensors: .* founder 'b' had when the run"):
        rebuild(lineage, "best")
    assert rebuild(lineage, ids["c"]).same  # which has nothing of b
    with pytest.raises(EvoError, match="founder 'b'"):
        verify(copy, sample=None)


def test_founders_may_have_moved(copy, tmp_path):
    lineage = evo.lineage.open(copy)
    before = rebuild(lineage, "best")
    (copy.parent / "f").rename(tmp_path / "elsewhere")
    with pytest.raises(EvoError, match="no such checkpoint"):
        rebuild(lineage, "best")
    places = {n: tmp_path / "elsewhere" / f"{n}.safetensors" for n in ("base", "a", "b", "c")}
    assert rebuild(lineage, "best", founders=places).digest == before.digest
    with pytest.raises(EvoError, match=r"no 'd'; there are a, b, base, c"):
        rebuild(lineage, "best", founders={"d": places["a"]})
    with pytest.raises(EvoError, match="founder 'b'"):
        rebuild(lineage, "best", founders={**places, "b": places["c"]})


def test_a_base_that_changed_is_refused(copy):
    save_file({"x": torch.ones(4)}, copy.parent / "f" / "base.safetensors")
    with pytest.raises(EvoError, match="founder 'base'"):
        rebuild(copy, "best")


def test_another_digest_on_record_is_found(copy):
    def change(rows):
        rows[2]["weights"] = "0" * 64

    victim = evo.lineage.open(copy).evaluations["individual"][2].as_py()
    rewrite(copy, "evaluations", change)
    with pytest.raises(EvoError, match=r"not what it was: .*000000000000.*have the versions"):
        rebuild(copy, victim)
    found = rebuild(copy, victim, check=False)
    assert (found.same, found.recorded) == (False, "0" * 64)
    assert rebuild(copy, "best").same


def test_another_version_of_torch_is_named_as_the_cause(copy):
    manifest = RunDir(copy).read_manifest()
    older = {**manifest.versions, "torch": "1.0"}
    RunDir(copy).write_manifest(replace(manifest, versions=older))
    change_manifest(copy, "scores", versions={"torch": "1.0"})
    rewrite(copy, "evaluations", lambda rows: rows[0].update(weights="0" * 64))
    victim = evo.lineage.open(copy).evaluations["individual"][0].as_py()
    with pytest.raises(EvoError, match=r"torch was 1\.0 and is"):
        rebuild(copy, victim)
    assert any("torch was 1.0 and is" in note for note in verify(copy, ["best"]).notes)


def test_where_no_digest_was_recorded_it_says_so(copy):
    def forget(rows):
        for row in rows:
            row["weights"] = None

    founder = evo.lineage.open(copy).evaluations["individual"][0].as_py()
    rewrite(copy, "evaluations", forget)
    for name in commits(copy / "lineage"):
        assert name.files
    found = rebuild(copy, evo.lineage.open(copy).evaluations["individual"][2].as_py())
    assert (found.recorded, found.same) in ((None, None), (found.digest, True))
    checked = verify(copy, [founder])
    assert checked.same
    assert checked.without_digest == 1


def test_rebuilding_needs_no_task_files_and_leaves_the_run_alone(copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    rebuild(copy, "best")
    verify(copy, sample=5)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


# Language models

SUMS = {
    "dev": [(f"{i}+{i}=", str(2 * i)) for i in range(12)],
    "test": [(f"{i}+{i + 1}=", str(2 * i + 1)) for i in range(12)],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three tiny GPT-2s with tied heads, and an integer buffer in the base's file."""
    folder = tmp_path_factory.mktemp("gpt2")
    for seed, name in enumerate(("base", "one", "two")):
        save(folder / name, build_model("gpt2", seed=seed))
    file = folder / "base" / "model.safetensors"
    save_file({**load_file(file), "steps": torch.tensor([7])}, file, {"format": "pt"})
    for split, sums in SUMS.items():
        text = "".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in sums)
        (folder / f"sums.{split}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module", params=["", "bfloat16"])
def language_run(request, models):
    config = RunConfig.model_validate(
        {
            "base": models / "base",
            "founders": [models / "one", models / "two"],
            "engine": {"dtype": request.param},
            "tasks": [
                {"name": "sums", "files": models / "sums"},
                {"name": "twice", "files": models / "sums", "weight": 2},
            ],
            "algorithm": {"name": "genome_plus", "population": 4},
            "budget": {"evaluations": 14},
            "pool": {"kind": "local"},
        }
    )
    return finished(config, models / f"run-{request.param}")


def test_an_exported_checkpoint_has_the_digest_that_was_recorded(language_run, tmp_path):
    made = check_all(language_run)
    assert Noise in parts_of(language_run)
    for name in list(made)[::4]:
        out = tmp_path / name[:8]
        export_individual(language_run.run_dir, name, out)
        assert digest_of(open_checkpoint(out)) == made[name].recorded
        assert "steps" in load_file(out / "model.safetensors")


def test_language_models_are_verified_example_by_example(language_run):
    found = verify(language_run.run_dir, sample=None)
    assert found.same
    assert len(found.checked) == language_run.individuals.num_rows - 1  # the average has no dev
    assert {c.examples for c in found.checked} == {24}
    assert not found.notes
    assert verify(language_run.run_dir, split="test").same


def test_tokens_are_counted_by_task_without_padding(language_run):
    """One token a character; the end of an answer is predicted, and never read."""
    rows = language_run.evaluations.to_pylist()
    for split, sums in SUMS.items():
        read = sum(len(prompt + answer) for prompt, answer in sums)
        tokens = {(r["task"], r["tokens"]) for r in rows if r["split"] == split}
        assert tokens == {("sums", read), ("twice", read)}


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_generated_tokens_count_up_to_what_ends_them(batch_tokens, tmp_path):
    engine = build_engine(tmp_path / "model", "llama", batch_tokens=batch_tokens)

    def count(*requests):
        before = engine.tokens
        outputs = engine.answer(engine.prepare(requests))
        return outputs, engine.tokens - before

    prompts = ["12=", "3+4+5=", "a"]
    written, total = count(*(Generate(p, 8) for p in prompts))
    new = sum(min(8, len(text) + 1) for text in written)  # an EOS counts, and is not in the text
    assert total == sum(map(len, prompts)) + new
    stop = written[0][2]
    (cut,), total = count(Generate(prompts[0], 8, stop=(stop,)))
    assert total == len(prompts[0]) + len(cut) + 1
    _, total = count(LogLikelihood("12=", "34"), RollingLogLikelihood("abcd"), Generate("1", 1))
    assert total == 4 + 4 + 2


def test_a_failed_job_keeps_its_digest_and_counts_no_tokens(models):
    founders = load_founders(models / "base", {"one": models / "one"})
    query = Query("t", "dev")
    spec = HostSpec(
        founders.base,
        founders.founders,
        EngineSpec(dtype="float16"),
        {query: (LogLikelihood("1+1=", "2"),)},
    )
    host = ModelHost(spec)
    one = founders.founders[0].founder
    good, huge = (host.run(Job(linear({one: c}), (query,))) for c in (1.0, 1e9))
    assert good.execution.tokens == (4,)
    assert not good.error
    assert "not finite" in huge.error
    assert huge.execution.tokens == ()
    assert len(huge.execution.weights) == 64
    assert huge.execution.weights != good.execution.weights
    assert host.run(Job(linear({one: 1.0}), (query,))).execution == good.execution
    stranger = FounderFiles(type(one)("stranger", "0"), models / "two").founder
    assert host.run(Job(stranger, (query,))).execution.weights == ""


# Paths, adapters, merges, aligned vocabularies


@pytest.fixture(scope="module")
def path_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paths")
    for seed, name in enumerate(("base", "one", "two")):
        save_model(folder / name, seed)
    for split, texts in (("dev", "abcd bcda cdab"), ("test", "abce bcea")):
        text = "".join(json.dumps({"text": t}) + "\n" for t in texts.split())
        (folder / f"texts.{split}.jsonl").write_text(text)
    stages = "{name: sequence, stages: [{name: recipe_search, population: 4}, joint]}"
    return run_paths(folder, "run", stages, evaluations=30)


def test_paths_over_founders_and_over_evolved_weights_are_rebuilt(path_run):
    made = check_all(path_run)
    routes = [m for m in made.values() if isinstance(m.recipe, Route)]
    assert any(isinstance(s.recipe, Linear) for m in routes for s in m.recipe.steps)
    for rebuilt in routes:
        layers = {n.split(".")[2] for n in rebuilt.weights.layout.names if ".layers." in n}
        assert layers == {str(k) for k in range(len(rebuilt.recipe.steps))}
    assert verify(path_run.run_dir, sample=None).same


def test_the_digest_of_a_path_is_of_its_steps_scales_and_tensors(path_run):
    config = json.loads((path_run.run_dir / "config.json").read_text())
    founders = load_founders(
        Path(config["base"]), {n: Path(p) for n, p in config["founders"].items()}
    )
    one, two = (f.founder for f in founders.founders)
    plain = (Step(one, 0), Step(two, 1), Step(one, 0))
    routes = [
        Route(one, plain, one),
        Route(one, (*plain[:2], Step(one, 0, 1.5)), one),
        Route(one, plain[::-1][:2], one),
        Route(one, (plain[0], Step(two, 2), plain[2]), one),
        Route(two, plain, one),
        Route(one, plain, two),
        # The same tensors by another recipe are the same path.
        Route(one, (plain[0], Step(linear({two: 0.5, one: 0.5}), 1), plain[2]), one),
    ]
    builder = Builder(founders.base, founders.founders)
    digests = [builder.digest(builder.build(route)) for route in routes]
    assert len(set(digests)) == len(routes)
    others = [Builder(founders.base, founders.founders) for _ in routes]
    again = [b.digest(b.build(r)) for b, r in zip(others, routes, strict=True)]
    assert again == digests


def test_adapters_and_their_merges_are_rebuilt(tmp_path):
    algorithm = {"name": "genome", "genes": "coefficients", "crossover": "lora_concat"}
    config = square_config(tmp_path / "f", algorithm=algorithm, budget={"evaluations": 30})
    lineage = finished(config, tmp_path / "run")
    check_all(lineage)
    assert Merge in parts_of(lineage)
    assert verify(tmp_path / "run", sample=10).same


def test_static_merges_of_a_run_are_rebuilt(tmp_path):
    more = {"baselines": {"static": ["ties"]}, "budget": {"evaluations": 10}}
    lineage = finished(toy_config(tmp_path / "f", **more), tmp_path / "run")
    merges = [r["id"] for r in lineage.individuals.to_pylist() if r["operator"] == "static:ties"]
    assert all(rebuild(lineage, name).same for name in merges[::8])
    assert verify(tmp_path / "run", sample=None).same


def test_a_run_with_aligned_vocabularies_is_rebuilt(tmp_path):
    save_words(tmp_path / "base", WORDS)
    one = save_words(tmp_path / "one", [*"fedcba", *SPECIALS], seed=1)
    two = save_words(tmp_path / "two", [*WORDS, "x"], seed=2)
    lineage = finished(union_config(tmp_path, one=one, two=two), tmp_path / "run")
    made = check_all(lineage)
    assert made[lineage.best()].weights["model.embed_tokens.weight"].shape[0] == 9
    assert verify(tmp_path / "run").same


# The digest itself


def test_a_digest_is_of_every_byte_name_shape_and_dtype():
    x = torch.arange(6.0)
    same = digest_of(weights_of({"x": x}))
    assert digest_of(weights_of({"x": x.clone()})) == same
    others = (
        {"y": x},
        {"x": x.view(2, 3)},
        {"x": x.double()},
        {"x": x.bfloat16()},
        {"x": torch.where(x == 0, -0.0, x)},
        {"x": x, "y": x[:0]},
    )
    digests = {digest_of(weights_of(other)) for other in others}
    assert len(digests - {same}) == len(others)


def test_a_digest_does_not_depend_on_the_pieces(monkeypatch):
    x = weights_of({"x": torch.randn(1000, 7), "y": torch.randn(3).bfloat16()})
    whole = digest_of(x)
    monkeypatch.setattr("cluster.founders.checkpoints._PIECE_BYTES", 33)
    assert digest_of(x) == whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_digest_does_not_depend_on_the_device(monkeypatch):
    x = weights_of({"x": torch.randn(1000, 7), "y": torch.randn(3).bfloat16()})
    there = Weights(x.layout, {n: t.cuda() for n, t in x.tensors.items()})
    monkeypatch.setattr("cluster.founders.checkpoints._PIECE_BYTES", 4096)
    assert digest_of(there) == digest_of(x)


# evo verify


def evo_verify(*arguments):
    return evo_command("verify", *arguments, COLUMNS="200")


def test_verify_says_that_a_good_run_is_good(toy_run):
    done = evo_verify(toy_run, "--sample", "7", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "All 7 are as recorded, to the last bit." in done.stdout
    assert done.stdout.count("│ same") == 7
    drawn = [[c.id for c in verify(toy_run, sample=7, seed=s).checked] for s in (3, 3, 4)]
    assert all(name[:12] in done.stdout for name in drawn[0])
    assert drawn[0] == drawn[1] != drawn[2]


def test_verify_finds_what_was_tampered_with_consistently(copy):
    ids = {r["description"]: r["id"] for r in evo.lineage.open(copy).individuals.to_pylist()}

    def brighten(rows):
        row = next(r for r in rows if r["individual"] == ids["b"])
        row["value"] += 0.25

    rewrite(copy, "items", brighten)
    evo.lineage.open(copy).items.validate(full=True)  # nothing else notices
    done = evo_verify(copy, "--all")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{ids['b'][:12]}: toy: 1 of 4 examples differ, such as 0, which was " in done.stdout
    assert "1 of 40 are not as recorded." in done.stdout
    assert not verify(copy, [ids["b"][:12]]).same
    assert verify(copy, ["best"]).same


TAMPERED = {
    "score": (lambda r: r.update(score=r["score"] + 1e-16 * 4), "the score was"),
    "standard_error": (lambda r: r.update(standard_error=0.5), "the standard error was 0.5"),
    "weights": (lambda r: r.update(weights="f" * 64), "weights were ffffffffffff"),
    "examples": (lambda r: r.update(task="other"), "other: a task that the run does not have"),
    "status": (lambda r: r.update(status="failed", error="it broke"), "failed then (it broke)"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_every_kind_of_tampering_is_named(name, copy):
    change, said = TAMPERED[name]
    b = next(
        r["id"] for r in evo.lineage.open(copy).individuals.to_pylist() if r["description"] == "b"
    )
    rewrite(
        copy,
        "evaluations",
        lambda rows: change(next(r for r in rows if r["individual"] == b)),
    )
    (checked,) = verify(copy, [b]).checked
    assert any(said in difference for difference in checked.differences)


def test_a_failure_made_into_a_score_is_found(copy):
    failed = next(
        r["individual"]
        for r in evo.lineage.open(copy).evaluations.to_pylist()
        if r["status"] == "failed" and r["generation"] == 0
    )

    def mend(rows):
        row = next(r for r in rows if r["individual"] == failed)
        row.update(status="ok", score=0.9, standard_error=0.0, examples=1, error=None)

    rewrite(copy, "evaluations", mend)
    (checked,) = verify(copy, [failed]).checked
    assert "got a score then, and fails now" in checked.differences[0]


def test_a_failure_without_weights_that_nothing_repeats_is_a_note(copy):
    b = next(
        r["id"] for r in evo.lineage.open(copy).individuals.to_pylist() if r["description"] == "b"
    )

    def lose(rows):
        row = next(r for r in rows if r["individual"] == b)
        row.update(status="failed", score=None, weights=None, error="lost with its host 3 times")

    rewrite(copy, "evaluations", lose)
    found = verify(copy, [b])
    assert found.same
    assert "lost with its host 3 times" in found.checked[0].note


def test_verify_refuses_what_makes_no_sense(copy):
    done = evo_verify(copy, "xyz")
    assert done.returncode == 2
    assert "no individual's id begins with 'xyz'" in done.stderr
    rows = evo.lineage.open(copy).evaluations.to_pylist()
    on_test = {r["individual"] for r in rows if r["split"] == "test"}
    elsewhere = next(r["individual"] for r in rows if r["individual"] not in on_test)
    with pytest.raises(EvoError, match="was not evaluated on test"):
        verify(copy, [elsewhere], split="test")
    shutil.rmtree(copy / "lineage")
    (copy / "lineage").mkdir()
    with pytest.raises(EvoError, match="nobody has been evaluated on dev"):
        verify(copy)


def test_examples_that_changed_since_are_refused(language_run, models, tmp_path):
    run = shutil.copytree(language_run.run_dir, tmp_path / "run")
    shutil.copy(models / "sums.dev.jsonl", tmp_path)
    shutil.copy(models / "sums.test.jsonl", tmp_path)
    config = run / "config.json"
    config.write_text(config.read_text().replace(str(models / "sums"), str(tmp_path / "sums")))
    assert verify(run, ["best"]).same
    file = tmp_path / "sums.dev.jsonl"
    file.write_text(file.read_text().replace('"2"', '"3"'))
    with pytest.raises(EvoError, match=r"can't be verified:\n- task .*sums.dev"):
        verify(run, ["best"])


@pytest.mark.slow
def test_hosts_of_ray_record_the_same(language_run, ray_session, tmp_path):
    config = RunConfig.model_validate_json((language_run.run_dir / "config.json").read_text())
    pool = {"kind": "ray", "hosts": 2}
    config = RunConfig.model_validate({**config.model_dump(), "pool": pool})
    there = finished(config, tmp_path / "run")
    kept = ["individual", "task", "split", "tokens", "weights"]
    assert there.evaluations.select(kept) == language_run.evaluations.select(kept)
    check_all(there)
