"""Exported individuals as plain transformers sees them, and checkpoints that are refused."""

import json
import os
import shutil

import pytest
import torch
from exported_models import NAMES, as_the_host_runs_it, logits_of
from safetensors.torch import load_file, save_file
from tiny_lm import build_model, save
from toys import toy_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.founders.checkpoints import (
    CheckpointError,
    load_founders,
    map_founders,
    open_checkpoint,
)
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.export.checkpoint import export
from evo.reproduce.export import export_individual
from fitness.engines.hf.engine import HFEngine
from operators.build.materialize import MissingFounderError
from operators.merge import merge
from operators.recipe import Founder, linear
from operators.recipe.canonical import from_json
from operators.variation.mutation import perturb


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three tiny random Llamas as ordinary checkpoints."""
    folder = tmp_path_factory.mktemp("llamas")
    return {n: save(folder / n, build_model("llama", seed=i)) for i, n in enumerate(NAMES)}


@pytest.fixture(scope="module")
def founders(checkpoints):
    return load_founders(checkpoints["base"], {n: checkpoints[n] for n in "ab"})


def recipes(founders):
    a, b = (f.founder for f in founders.founders)
    mixed = linear({a: 0.7, b: -0.2, founders.base.founder: 0.5})
    return {
        "founder": a,
        "linear": mixed,
        "noisy": perturb(mixed, sigma=0.05, rate=0.5, seed=3),
        "ties": merge("ties", [a, b], base=founders.base.founder, params={"density": 0.5}),
    }


@pytest.mark.parametrize("kind", ["founder", "linear", "noisy", "ties"])
def test_plain_transformers_sees_what_the_host_scored(kind, founders, tmp_path):
    recipe = recipes(founders)[kind]
    out = export(recipe, founders, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert torch.equal(logits_of(model), logits_of(as_the_host_runs_it(recipe, founders)))
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("12+3=")["input_ids"] == [5, 6, 42, 7, 41]


def test_an_exported_founder_is_that_founder(checkpoints, founders, tmp_path):
    out = export(founders.founders[0].founder, founders, tmp_path / "out")
    original = load_file(checkpoints["a"] / "model.safetensors")
    exported = load_file(out / "model.safetensors")
    assert original.keys() == exported.keys()
    assert all(torch.equal(original[n], exported[n]) for n in original)


def test_an_export_is_a_founder_of_the_next_run(founders, tmp_path):
    out = export(recipes(founders)["linear"], founders, tmp_path / "out")
    again = load_founders(founders.base.path, {"evolved": out, "a": founders.founders[0].path})
    assert again.founders[0].founder.name == "evolved"
    HFEngine(out)


def test_recipe_and_card_come_with_it(founders, tmp_path):
    recipe = recipes(founders)["noisy"]
    out = export(recipe, founders, tmp_path / "deep" / "er" / "out")
    assert from_json((out / "recipe.json").read_text()) == recipe
    card = (out / "README.md").read_text()
    assert card.startswith("---\ntags: [merge, evo-models]\n---\n")
    assert recipe.id in card
    for file in founders.all_files():
        assert f"- {file.founder.name}: `{file.founder.digest}`" in card
    assert {p.name for p in out.iterdir()} >= {"config.json", "tokenizer.json", "model.safetensors"}
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["out"]


def test_the_dtype_can_be_chosen(founders, tmp_path):
    recipe = recipes(founders)["linear"]
    out = export(recipe, founders, tmp_path / "out", dtype="bfloat16")
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    expected = as_the_host_runs_it(recipe, founders, "bfloat16")
    assert torch.equal(logits_of(model), logits_of(expected))


def sharded(source, target):
    """A copy of a checkpoint in several files."""
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(target, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    assert len(list(target.glob("model-*.safetensors"))) > 1
    return target


def test_sharded_founders_are_the_same_founders(checkpoints, founders, tmp_path):
    paths = {n: sharded(checkpoints[n], tmp_path / n) for n in NAMES}
    pieces = load_founders(paths["base"], {n: paths[n] for n in "ab"})
    assert [f.founder for f in pieces.all_files()] == [f.founder for f in founders.all_files()]
    recipe = recipes(founders)["linear"]
    whole, split = (export(recipe, f, tmp_path / n) for f, n in ((founders, "x"), (pieces, "y")))
    assert sorted(p.name for p in split.iterdir()) == sorted(p.name for p in whole.iterdir())
    one, other = (load_file(o / "model.safetensors") for o in (whole, split))
    assert all(torch.equal(one[n], other[n]) for n in one)
    AutoModelForCausalLM.from_pretrained(split)


def test_large_exports_are_sharded_and_load(founders, tmp_path, monkeypatch):
    monkeypatch.setattr("evo.export.checkpoint.SHARD_BYTES", 40_000)
    recipe = recipes(founders)["linear"]
    out = export(recipe, founders, tmp_path / "out")
    assert not (out / "model.safetensors").exists()
    assert len(list(out.glob("model-*.safetensors"))) > 1
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits_of(model), logits_of(as_the_host_runs_it(recipe, founders)))
    assert open_checkpoint(out).layout == open_checkpoint(founders.base.path).layout


def test_integer_buffers_and_other_files_are_the_bases(tmp_path):
    for i, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        tensors = {"x": torch.full((3,), float(i)), "steps": torch.tensor([i, 7])}
        save_file(tensors, tmp_path / name / "model.safetensors")
    (tmp_path / "base" / "notes.txt").write_text("mine")
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"old")
    (tmp_path / "base" / "README.md").write_text("the base's card")
    founders = load_founders(tmp_path / "base", {n: tmp_path / n for n in "ab"})
    out = export(linear({f.founder: 0.5 for f in founders.founders}), founders, tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    assert tensors["x"].tolist() == [1.5] * 3
    assert tensors["steps"].tolist() == [0, 7]
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "pytorch_model.bin").exists()
    assert "evolved" in (out / "README.md").read_text()


def test_a_toy_run_saves_its_best(tmp_path):
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        list(evolution)
        summary = evolution.finish()
        out = evolution.save("best", tmp_path / "best")
        other = evolution.lineage.individuals["id"][0].as_py()
        evolution.save(other[:20], str(tmp_path / "first"))
    assert from_json((out / "recipe.json").read_text()).id == summary.winner.id
    x = load_file(out / "model.safetensors")["x"]
    target = torch.tensor([0.92, 0.42, -0.68, 0.22])
    assert float(torch.exp(-((x - target) ** 2)).mean()) == pytest.approx(summary.winner.test)
    assert load_file(tmp_path / "first" / "model.safetensors")["x"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_exported_files_are_as_readable_as_the_umask_lets_them(mask, founders, tmp_path):
    before = os.umask(mask)
    try:
        out = export(recipes(founders)["founder"], founders, tmp_path / "out")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {0o666 & ~mask}
    assert out.stat().st_mode & 0o777 == 0o777 & ~mask


def test_what_exists_is_not_overwritten(founders, tmp_path):
    recipe = recipes(founders)["founder"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more work")
    for name in ("full", "file"):
        with pytest.raises(EvoError, match=f"{name}: exists already"):
            export(recipe, founders, tmp_path / name)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "more work"
    (tmp_path / "empty").mkdir()
    assert export(recipe, founders, tmp_path / "empty") == tmp_path / "empty"


def test_an_export_needs_the_founders_that_are_in_it_and_no_others(tmp_path):
    config = toy_config(tmp_path / "f")
    with Evolution(config, tmp_path / "run") as evolution:
        list(evolution)
        rows = evolution.lineage.table("individuals").to_pylist()
    wanted, other, *_ = config.founders
    ids = {r["description"]: r["id"] for r in rows if r["operator"] == "founder"}
    config.founders[other].unlink()
    export_individual(tmp_path / "run", ids[wanted], tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    with pytest.raises(EvoError) as caught:
        export_individual(tmp_path / "run", ids[other], tmp_path / "more")
    message = str(caught.value)
    assert message.startswith(f"{config.founders[other]}: no such checkpoint")
    assert f"Put it back, or edit founders.{other} in the config.json there" in message
    assert not (tmp_path / "more").exists()


def copied(checkpoints, folder):
    paths = {n: shutil.copytree(checkpoints[n], folder / n) for n in NAMES}
    return load_founders(paths["base"], {n: paths[n] for n in "ab"})


def test_a_founder_that_changed_since_leaves_no_export(checkpoints, tmp_path):
    founders = copied(checkpoints, tmp_path / "in")
    recipe = recipes(founders)["linear"]
    changed = founders.founders[1].path / "model.safetensors"
    tensors = load_file(changed)
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, changed, {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"in/b: the tensors of founder 'b' have changed since"
    ):
        export(recipe, founders, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_unknown_founder_leaves_no_export(founders, tmp_path):
    with pytest.raises(MissingFounderError, match="'stranger'"):
        export(Founder("stranger", "0"), founders, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_midway_leaves_nothing(checkpoints, tmp_path):
    founders = copied(checkpoints, tmp_path / "in")
    config = founders.base.path / "config.json"
    config.write_text("{ not json")
    with pytest.raises(ValueError, match="Expecting"):
        export(recipes(founders)["linear"], founders, tmp_path / "out", dtype="bfloat16")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


# Checkpoints that are refused


@pytest.fixture
def checkpoint(checkpoints, tmp_path):
    return shutil.copytree(checkpoints["a"], tmp_path / "checkpoint")


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pth"])
def test_pickled_weights_are_refused_with_a_remedy(name, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(b"\x80")
    message = refused(checkpoint)
    assert str(checkpoint / name) in message
    assert "safe_serialization=True" in message


def test_an_adapter_is_refused_with_a_remedy(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    (checkpoint / "adapter_config.json").write_text("{}")
    assert "merge_and_unload" in refused(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(keep, checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file}: not a readable safetensors file" in refused(checkpoint)


def test_a_missing_shard_is_named(checkpoints, tmp_path):
    path = sharded(checkpoints["a"], tmp_path / "pieces")
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard}: missing, though model.safetensors.index.json lists it" in refused(path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"x": 3}}', '{"weight_map": {}}']
)
def test_a_damaged_index_is_named(text, checkpoint):
    (checkpoint / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refused(checkpoint) or text.endswith("{}}")


def test_an_index_does_not_lead_out_of_its_folder(checkpoint, tmp_path):
    shutil.copy(checkpoint / "model.safetensors", tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "which is not in this folder" in refused(checkpoint)


def test_folders_without_weights_are_refused(checkpoint, tmp_path):
    assert "no such checkpoint folder" in refused(tmp_path / "nowhere")
    assert "no such checkpoint folder" in refused(checkpoint / "config.json")
    (checkpoint / "model.safetensors").unlink()
    assert "has neither model.safetensors nor" in refused(checkpoint)
    save_file({"steps": torch.tensor([1])}, checkpoint / "model.safetensors")
    assert "no floating-point tensors" in refused(checkpoint)


def test_founders_of_another_shape_are_refused_with_both_places(checkpoints, checkpoint):
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.zeros(5)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is float32\[32\].*float32\[5\]"):
        load_founders(checkpoints["base"], {"a": checkpoint})
    del tensors["model.norm.weight"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is in .*but not in"):
        load_founders(checkpoints["base"], {"a": checkpoint})


def test_writing_to_a_founder_does_not_reach_its_file(checkpoint):
    before = (checkpoint / "model.safetensors").read_bytes()
    open_checkpoint(checkpoint)["model.norm.weight"].fill_(7.0)
    assert (checkpoint / "model.safetensors").read_bytes() == before


def test_a_digest_is_of_the_tensors_and_not_of_the_file(checkpoint, checkpoints):
    file = checkpoint / "model.safetensors"
    save_file(load_file(file), file, {"note": "written again"})
    one = load_founders(checkpoints["base"], {"a": checkpoint})
    other = load_founders(checkpoints["base"], {"a": checkpoints["a"]})
    assert one.founders[0].founder == other.founders[0].founder
    assert map_founders(one.all_files()).keys() == map_founders(other.all_files()).keys()
