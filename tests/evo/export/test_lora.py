"""LoRA adapters as founders, checked against peft: reading, refusals, merging, runs, export."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner
from exported_models import as_the_host_runs_it, logits_of
from lora_models import ALL, factors_of, make_adapter, square_config
from safetensors.torch import load_file, save_file
from tiny_lm import CHARACTERS, build_model, save
from tiny_zoo import tiny
from transformers import AutoModelForCausalLM
from warm_evo import evo as evo_command

from cluster.founders.checkpoints import (
    CheckpointError,
    base_weights,
    load_founders,
    map_founders,
    open_checkpoint,
)
from evo.cli import cli
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.export.checkpoint import export
from evo.export.lora import export_adapter
from operators.build.materialize import Materializer
from operators.merge import merge
from operators.recipe import Noise, linear
from operators.variation.mutation import perturb

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base)
    return peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {k: save(folder / k, build_model(k)) for k in ("llama", "gpt2")}


@pytest.fixture(scope="module")
def adapters(bases, tmp_path_factory):
    """Three adapters of one base: other ranks, other modules, one rsLoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "a": make_adapter(bases["llama"], folder / "a", 1),
        "b": make_adapter(bases["llama"], folder / "b", 2, r=4, lora_alpha=8),
        "c": make_adapter(
            bases["llama"], folder / "c", 3, r=2, use_rslora=True, target_modules=ALL
        ),
    }


@pytest.fixture(scope="module")
def founders(bases, adapters):
    return load_founders(bases["llama"], adapters)


def leaves(founders):
    return founders.base.founder, *(f.founder for f in founders.founders)


def built(recipe, founders):
    mapped = map_founders(founders.all_files())
    layout = base_weights(founders.base.founder, mapped).layout
    return Materializer(layout, mapped).build(recipe)


# Reading


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"r": 3, "use_rslora": True, "target_modules": ALL}),
        (
            "llama",
            {
                "target_modules": ALL,
                "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 5, r".*0.*\.v_proj": 1},
                "alpha_pattern": {"^model.layers.0.self_attn.k_proj": 9, "down_proj": 1},
            },
        ),
        ("llama", {"target_modules": ["embed_tokens", "lm_head", "o_proj"]}),
        # Conv1D keeps (in, out); both c_proj are square or not, by layer.
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_rslora": True}),
    ],
    ids=["plain", "rslora", "patterns", "embedding", "conv1d", "conv1d-unflagged"],
)
def test_a_founder_is_what_peft_merges(kind, settings, bases, tmp_path):
    path = make_adapter(bases[kind], tmp_path / "x", 5, **settings)
    founders = load_founders(bases[kind], {"x": path})
    child = built(founders.founders[0].founder, founders)
    expected = merged_by_peft(bases[kind], path)
    base = open_checkpoint(bases[kind])
    changed = [n for n in base.layout.names if not torch.equal(child[n], base[n])]
    assert len(changed) >= 4
    for name in base.layout.names:
        assert (child[name] - expected[name]).abs().max() <= 1e-6, name


def test_a_base_saved_without_its_prefix_takes_the_same_adapter(bases, tmp_path):
    path = make_adapter(bases["gpt2"], tmp_path / "x", 5, target_modules=["c_attn", "c_fc"])
    bare = shutil.copytree(bases["gpt2"], tmp_path / "bare")
    tensors = load_file(bare / "model.safetensors")
    stripped = {n.removeprefix("transformer."): t for n, t in tensors.items()}
    save_file(stripped, bare / "model.safetensors", {"format": "pt"})
    founders = load_founders(bare, {"x": path})
    child = built(founders.founders[0].founder, founders)
    expected = merged_by_peft(bases["gpt2"], path)
    for name in child.layout.names:
        assert (child[name] - expected[f"transformer.{name}"]).abs().max() <= 1e-6
    # ... and back: the exported adapter has the model's own names again.
    export_adapter(founders.founders[0].founder, founders, tmp_path / "out")
    again = merged_by_peft(bases["gpt2"], tmp_path / "out")
    assert all((again[n] - expected[n]).abs().max() <= 1e-6 for n in expected)


def test_a_half_precision_adapter_is_merged_in_float32(bases, adapters, tmp_path):
    path = shutil.copytree(adapters["a"], tmp_path / "half")
    half = {n: t.bfloat16() for n, t in load_file(path / WEIGHTS).items()}
    save_file(half, path / WEIGHTS)
    founders = load_founders(bases["llama"], {"half": path})
    child = built(founders.founders[0].founder, founders)
    expected = merged_by_peft(bases["llama"], path)
    assert all((child[n] - expected[n]).abs().max() <= 1e-6 for n in child.layout.names)


def test_a_float8_adapter_is_read_as_the_numbers_that_it_holds(bases, adapters, tmp_path):
    path, same = (shutil.copytree(adapters["a"], tmp_path / n) for n in ("small", "same"))
    small = {n: t.to(torch.float8_e4m3fn) for n, t in load_file(path / WEIGHTS).items()}
    save_file(small, path / WEIGHTS)
    save_file({n: t.float() for n, t in small.items()}, same / WEIGHTS)
    founders = load_founders(bases["llama"], {"small": path, "same": same})
    child, expected = (built(f.founder, founders) for f in founders.founders)
    assert all(torch.equal(child[n], expected[n]) for n in child.layout.names)


def test_a_digest_is_of_the_base_and_of_what_the_adapter_changes(bases, adapters, tmp_path):
    one = load_founders(bases["llama"], {"x": adapters["a"]}).founders[0].founder
    copy = shutil.copytree(adapters["a"], tmp_path / "copy")
    config = json.loads((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps(config | {"lora_dropout": 0.1, "revision": "main"}))
    assert load_founders(bases["llama"], {"x": copy}).founders[0].founder == one
    (copy / CONFIG).write_text(json.dumps(config | {"lora_alpha": 7}))
    assert load_founders(bases["llama"], {"x": copy}).founders[0].founder != one
    other_base = save(tmp_path / "other", build_model("llama", seed=9))
    assert load_founders(other_base, {"x": adapters["a"]}).founders[0].founder != one


def test_an_adapter_that_changed_since_the_run_began_is_named(bases, adapters, tmp_path):
    copy = shutil.copytree(adapters["a"], tmp_path / "copy")
    files = load_founders(bases["llama"], {"x": copy}).all_files()
    config = json.loads((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps(config | {"lora_alpha": 7}))
    with pytest.raises(
        CheckpointError, match=r"copy: the tensors of founder .x. have changed since"
    ):
        map_founders(files)


def test_the_same_adapter_twice_is_refused(bases, adapters, tmp_path):
    copy = shutil.copytree(adapters["a"], tmp_path / "copy")
    with pytest.raises(CheckpointError, match="'a' and 'again' hold the same tensors"):
        load_founders(bases["llama"], {"a": adapters["a"], "again": copy})


# Refusals


@pytest.fixture
def broken(bases, adapters, tmp_path):
    """Loads a copy of adapter a after ``change(config, tensors)``; gives the refusal."""

    def load(change, base="llama", source=None):
        path = shutil.copytree(source or adapters["a"], tmp_path / "broken")
        config = json.loads((path / CONFIG).read_text())
        tensors = load_file(path / WEIGHTS)
        change(config, tensors)
        (path / CONFIG).write_text(json.dumps(config))
        save_file(tensors, path / WEIGHTS)
        with pytest.raises(CheckpointError) as caught:
            load_founders(bases[base], {"x": path})
        assert str(path) in str(caught.value)
        return str(caught.value)

    return load


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("bias", "lora_only"),
        ("peft_type", "IA3"),
        ("use_qalora", True),
        ("trainable_token_indices", [1, 2]),
        ("alora_invocation_tokens", [3]),
        ("a_variant_to_come", True),
    ],
)
def test_variants_of_lora_are_refused_by_name(key, value, broken):
    message = broken(lambda config, tensors: config.update({key: value}))
    assert key in message
    assert "merge_and_unload" in message


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_starts_that_change_the_base_are_refused(start, broken):
    message = broken(lambda config, tensors: config.update({"init_lora_weights": start}))
    assert repr(start) in message
    assert "path_initial_model_for_weight_conversion" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{Q}.lora_magnitude_vector", "DoRA"),
        (f"{Q}.lora_B.bias", "beside the factors"),
        ("base_model.model.lm_head.weight", "beside the factors"),
    ],
)
def test_tensors_beside_the_factors_are_refused(name, said, broken):
    message = broken(lambda config, tensors: tensors.update({name: torch.ones(50, 32)}))
    assert name in message
    assert said in message
    assert "merge_and_unload" in message


def test_a_key_that_the_base_lacks_is_named_with_the_nearest(broken):
    def change(config, tensors):
        for half in "AB":
            tensors[f"{Q[:-6]}w_proj.lora_{half}.weight"] = tensors.pop(f"{Q}.lora_{half}.weight")

    message = broken(change)
    assert "'model.layers.0.self_attn.w_proj.weight'" in message
    assert "it has 'model.layers.0.self_attn." in message


def test_an_adapter_of_a_larger_base_is_refused_with_both_shapes(broken):
    def change(config, tensors):
        tensors[f"{Q}.lora_B.weight"] = torch.zeros(48, 4)

    message = broken(change)
    assert "'model.layers.0.self_attn.q_proj.weight' is [48, 32]" in message
    assert "the base's tensor is [32, 32]" in message


def test_an_adapter_of_another_architecture_is_refused(broken):
    assert "which the base does not have" in broken(lambda c, t: None, base="gpt2")


def test_an_adapter_of_a_tied_embedding_is_refused(bases, broken, tmp_path):
    path = make_adapter(bases["gpt2"], tmp_path / "tied", 5, target_modules=["wte", "c_attn"])
    assert "seems to share" in broken(lambda c, t: None, base="gpt2", source=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, t: c.update(r=5), "gives it rank 5"),
        (lambda c, t: c.update(r=0), "r must be a whole number of 1 or more, got 0"),
        (lambda c, t: c.update(r=4.7), "r must be a whole number of 1 or more, got 4.7"),
        (lambda c, t: c.pop("lora_alpha"), "lora_alpha must be a finite number, got None"),
        (lambda c, t: c.update(lora_alpha=float("inf")), "lora_alpha must be a finite number"),
        (lambda c, t: c.update(lora_alpha=10**400), "lora_alpha must be a finite number"),
        (
            lambda c, t: c.update(alpha_pattern={"q_proj": float("nan")}),
            "alpha_pattern['q_proj'] must be a finite number, got nan",
        ),
        (lambda c, t: c.update(lora_alpha=1e300), "q_proj times their scaling 2.5e+299"),
        (lambda c, t: c.update(rank_pattern={"q_(": 2}), "rank_pattern: 'q_(' is not a regular"),
        (lambda c, t: c.update(alpha_pattern={"[": 2}), "alpha_pattern: '[' is not a regular"),
        (lambda c, t: c.update(rank_pattern=[3]), "rank_pattern must map patterns"),
        (lambda c, t: t.pop(f"{Q}.lora_A.weight"), "only one of lora_A and lora_B"),
        (lambda c, t: t[f"{Q}.lora_A.weight"].fill_(torch.nan), "NaN or infinite"),
        (lambda c, t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 32, 1)}), "not matrices"),
        (lambda c, t: t.clear(), "holds no lora_A"),
        (
            lambda c, t: t.update({n: v.int() for n, v in t.items()}),
            "factors of torch.int32 and torch.int32; they must be floating-point",
        ),
        (
            lambda c, t: t.update(
                {n.replace("model.model.", "model."): v.clone() for n, v in t.items()}
            ),
            "'layers.0.self_attn.q_proj' and 'model.layers.0.self_attn.q_proj' both change",
        ),
    ],
    ids=[
        *("rank", "rank-0", "rank-broken", "alpha", "alpha-inf", "alpha-huge", "alpha-nan"),
        *("overflow", "rank-regex", "alpha-regex", "patterns", "half", "nan", "shape", "empty"),
        *("integers", "twice"),
    ],
)
def test_damaged_adapters_are_refused(change, said, broken):
    assert said in broken(change)


def test_files_that_are_no_adapter_are_named(bases, adapters, tmp_path):
    path = shutil.copytree(adapters["a"], tmp_path / "x")
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: not a readable safetensors file"):
        load_founders(bases["llama"], {"x": path})
    (path / WEIGHTS).rename(path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: pickled .* save_pretrained"):
        load_founders(bases["llama"], {"x": path})
    (path / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: missing; an adapter needs it"):
        load_founders(bases["llama"], {"x": path})
    for text, said in (("[", "Expecting"), ("[]", "got list"), ("null", "got NoneType")):
        (path / CONFIG).write_text(text)
        with pytest.raises(CheckpointError, match=f"{CONFIG}: not a PEFT adapter's config.*{said}"):
            load_founders(bases["llama"], {"x": path})
    with pytest.raises(CheckpointError, match="x: is a PEFT adapter, which can be a founder"):
        load_founders(path, {"a": bases["llama"]})


# Merging


def test_a_merged_pair_is_right_where_averaged_factors_are_wrong(bases, adapters, founders):
    base, a, b, _ = leaves(founders)
    merged = merge("lora_concat", [a, b], base=base, params={"weight": (0.5, 0.5)})
    child, sums = built(merged, founders), built(linear({a: 0.5, b: 0.5}), founders)
    ours, by_a, by_b = (
        open_checkpoint(bases["llama"]),
        merged_by_peft(bases["llama"], adapters["a"]),
        merged_by_peft(bases["llama"], adapters["b"]),
    )
    factors = [load_file(adapters[n] / WEIGHTS) for n in "ab"]
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.q_proj"
        origin = ours[f"{name}.weight"]
        right = (by_a[f"{name}.weight"] + by_b[f"{name}.weight"]) / 2 - origin
        scaled = [6 / 4, 8 / 4]
        mean_b = sum(
            s * f[f"base_model.model.{name}.lora_B.weight"]
            for s, f in zip(scaled, factors, strict=True)
        )
        mean_a = sum(f[f"base_model.model.{name}.lora_A.weight"] for f in factors)
        wrong = (mean_b / 2) @ (mean_a / 2)
        assert (wrong - right).norm() > 0.5 * right.norm()
        for made in (child, sums):
            assert ((made[f"{name}.weight"] - origin) - right).abs().max() <= 1e-6


def test_adapters_and_whole_models_may_stand_in_one_population(bases, adapters, tmp_path):
    whole = save(tmp_path / "whole", build_model("llama", seed=4))
    founders = load_founders(bases["llama"], {"a": adapters["a"], "whole": whole})
    base, a, w = leaves(founders)
    child = built(linear({a: 0.5, w: 0.75, base: -0.25}), founders)
    theirs = merged_by_peft(bases["llama"], adapters["a"])
    origin, other = open_checkpoint(bases["llama"]), open_checkpoint(whole)
    for name in child.layout.names:
        expected = 0.5 * theirs[name] + 0.75 * other[name] - 0.25 * origin[name]
        assert torch.allclose(child[name], expected, atol=1e-6)


# Export


def mix(founders):
    base, a, b, c = leaves(founders)
    return linear({a: 0.7, b: -0.4, c: 0.9, base: -0.2})


def test_plain_peft_loads_the_exported_adapter(bases, founders, tmp_path):
    recipe = mix(founders)
    report = export_adapter(recipe, founders, tmp_path / "adapter")
    export(recipe, founders, tmp_path / "merged")
    assert (report.rank, report.matrices, report.discarded) == (10, 14, 0.0)
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert Path(loaded.peft_config["default"].base_model_name_or_path) == bases["llama"]
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits_of(loaded), logits_of(whole), rtol=1e-5, atol=1e-5)
    assert torch.equal(logits_of(whole), logits_of(as_the_host_runs_it(recipe, founders)))
    merged, exact = loaded.merge_and_unload().state_dict(), whole.state_dict()
    assert all((merged[n] - exact[n]).abs().max() <= 1e-6 for n in exact)


def test_an_exported_adapter_is_a_founder_again(founders, tmp_path):
    recipe = mix(founders)
    export_adapter(recipe, founders, tmp_path / "out")
    again = load_founders(founders.base.path, {"again": tmp_path / "out"})
    child, expected = built(again.founders[0].founder, again), built(recipe, founders)
    assert all((child[n] - expected[n]).abs().max() <= 1e-6 for n in child.layout.names)


@pytest.mark.parametrize(
    ("kind", "targets"), [("llama", ["embed_tokens", "k_proj"]), ("gpt2", ["c_attn", "c_fc"])]
)
def test_embeddings_and_conv1d_survive_the_way_out(kind, targets, bases, tmp_path):
    paths = {
        str(seed): make_adapter(
            bases[kind], tmp_path / str(seed), seed, r=seed, target_modules=targets
        )
        for seed in (2, 3)
    }
    founders = load_founders(bases[kind], paths)
    _, one, other = leaves(founders)
    recipe = linear({one: 0.5, other: 0.5})
    export_adapter(recipe, founders, tmp_path / "out")
    expected, merged = built(recipe, founders), merged_by_peft(bases[kind], tmp_path / "out")
    assert all((merged[n] - expected[n]).abs().max() <= 1e-6 for n in expected.layout.names)


def energies(deltas, rank):
    """‖ΔW‖² of each tensor, and what numpy's SVD leaves out of it at ``rank``."""
    whole, lost = {}, {}
    for name, delta in deltas.items():
        squares = np.linalg.svd(delta.double().numpy(), compute_uv=False) ** 2
        whole[name], lost[name] = squares.sum(), squares[rank:].sum()
    return whole, lost


def test_truncation_reports_the_energy_that_numpys_svd_leaves_out(founders, tmp_path):
    recipe = mix(founders)
    report = export_adapter(recipe, founders, tmp_path / "out", rank=3)
    child, base = built(recipe, founders), open_checkpoint(founders.base.path)
    deltas = {n: child[n] - base[n] for n in base.layout.names if not child[n].equal(base[n])}
    whole, lost = energies(deltas, 3)
    assert report.rank == 3
    assert report.discarded == pytest.approx(sum(lost.values()) / sum(whole.values()), rel=1e-4)
    worst = max(whole, key=lambda n: lost[n] / whole[n])
    assert report.worst == (worst, pytest.approx(lost[worst] / whole[worst], rel=1e-4))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"without {100 * report.discarded:.3g} % of ‖ΔW‖²" in card
    assert worst in card
    merged = merged_by_peft(founders.base.path, tmp_path / "out")
    left = sum(float((merged[n] - child[n]).double().square().sum()) for n in deltas)
    assert left == pytest.approx(sum(lost.values()), rel=1e-4)


def test_full_rank_noise_needs_a_rank(founders, tmp_path):
    recipe = perturb(mix(founders), sigma=0.05, rate=0.5, seed=3)
    with pytest.raises(EvoError, match=r"without --adapter\), or give a --rank"):
        export_adapter(recipe, founders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = export_adapter(recipe, founders, tmp_path / "out", rank=6)
    child, base = built(recipe, founders), open_checkpoint(founders.base.path)
    deltas = {n: child[n] - base[n] for n in base.layout.names}
    norms = {n: float(d.double().square().sum()) for n, d in deltas.items() if d.ndim == 1}
    whole, lost = energies({n: d for n, d in deltas.items() if d.ndim == 2}, 6)
    expected = (sum(lost.values()) + sum(norms.values())) / sum((*whole.values(), *norms.values()))
    assert report.discarded == pytest.approx(expected, rel=1e-4)
    assert report.worst[0] in norms
    assert report.worst[1] == 1.0
    merged = merged_by_peft(founders.base.path, tmp_path / "out")
    left = sum(float((merged[n] - child[n]).double().square().sum()) for n in whole)
    assert left == pytest.approx(sum(lost.values()), rel=1e-4)


def test_a_whole_fine_tune_can_be_cut_to_an_adapter(bases, tmp_path):
    whole = save(tmp_path / "whole", build_model("gpt2", seed=4))
    founders = load_founders(bases["gpt2"], {"whole": whole})
    with pytest.raises(EvoError, match="it holds whole models"):
        export_adapter(founders.founders[0].founder, founders, tmp_path / "out")
    report = export_adapter(founders.founders[0].founder, founders, tmp_path / "out", rank=32)
    merged, own = merged_by_peft(bases["gpt2"], tmp_path / "out"), open_checkpoint(whole)
    for layer in range(2):  # of full rank, so nothing is lost where peft has a place for it
        name = f"transformer.h.{layer}.mlp.c_fc.weight"
        assert (merged[name] - own[name]).abs().max() <= 1e-5
    assert report.worst[1] == 1.0  # the tied embedding has none


def test_no_matrix_is_written_with_more_rank_than_it_can_have(founders, tmp_path):
    recipe = perturb(mix(founders), sigma=0.05, rate=0.5, seed=3)
    report = export_adapter(recipe, founders, tmp_path / "out", rank=1000)
    written = load_file(tmp_path / "out" / WEIGHTS)
    base = open_checkpoint(founders.base.path)
    for name, tensor in written.items():
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            assert len(tensor) <= min(base[f"{module}.weight"].shape), name
    assert report.rank <= 32
    with pytest.raises(EvoError, match="rank must be 1 or more, or 0 for an exact adapter; got -1"):
        export_adapter(recipe, founders, tmp_path / "negative", rank=-1)


def test_there_must_be_something_to_export(founders, tmp_path):
    with pytest.raises(EvoError, match="changes no matrix"):
        export_adapter(founders.base.founder, founders, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(EvoError, match="exists already"):
        export_adapter(mix(founders), founders, tmp_path / "full")


def test_a_rank_without_an_adapter_is_a_mistake(tmp_path):
    arguments = ["export", str(tmp_path), "best", "--out", str(tmp_path / "out"), "--rank", "4"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert "give --adapter too" in done.output


def test_an_adapter_is_no_yaml_file(tmp_path):
    arguments = ["export", str(tmp_path), "best", "--out", str(tmp_path / "y.yaml"), "--adapter"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert "choose one" in done.output


# Runs


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "recipe_search"},
        {"name": "genome", "genes": "coefficients", "crossover": "lora_concat"},
    ],
    ids=lambda a: a["name"],
)
def test_a_population_of_adapters_evolves_and_stays_of_low_rank(algorithm, tmp_path):
    config = square_config(tmp_path / "square", algorithm=algorithm)
    with Evolution(config, tmp_path / "run") as run:
        for _ in run:
            pass
        summary = run.finish()
        recipe = run.best.recipe
        operators = set(run.lineage.table("individuals")["operator"].to_pylist())
    best = max(b.test for b in summary.baselines if b.kind == "founder")
    assert summary.winner.test > best + 0.05
    if algorithm["name"] == "genome":
        assert "crossover:lora_concat" in operators
    files = load_founders(config.base, config.founders)
    mapped = map_founders(files.all_files())
    layout = base_weights(files.base.founder, mapped).layout
    found = Materializer(layout, mapped).factors(recipe)
    assert found is not None
    assert np.linalg.matrix_rank(found["layer.weight"].dense().numpy(), tol=1e-5) <= 5


def test_noise_on_adapters_is_dense_and_still_right(tmp_path):
    config = square_config(tmp_path / "square")
    files = load_founders(config.base, config.founders)
    _, one, other, _ = leaves(files)
    child = built(linear({one: 1.0, other: 0.5, Noise(7): 0.1}), files)
    quiet = (
        factors_of(1, 1)[0] @ factors_of(1, 1)[1] + 0.5 * factors_of(2, 2)[0] @ factors_of(2, 2)[1]
    )
    noise = (child["layer.weight"] - quiet) / 0.1
    assert 0.6 < float(noise.std()) < 1.5
    with pytest.raises(EvoError, match=r"no config\.json"):
        export_adapter(linear({one: 1.0, other: 0.5}), files, tmp_path / "out")


def test_ones_own_loop_saves_an_adapter(bases, adapters, tmp_path):
    rows = [{"prompt": f"{i} = ", "choices": ["a", "b", "c"], "label": i % 3} for i in range(6)]
    (tmp_path / "letters.dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = RunConfig.model_validate(
        {
            "base": bases["llama"],
            "founders": adapters,
            "tasks": [{"name": "letters", "files": tmp_path / "letters", "metric": "accuracy"}],
            "budget": {"evaluations": 8},
            "pool": {"kind": "local"},
        }
    )
    with Evolution(config, tmp_path / "run") as run:
        for _ in run:
            pass
        child = run.lineage.table("individuals")["id"].to_pylist()[-1]
        exact = run.save_adapter(child, tmp_path / "exact")
        cut = run.save_adapter(child, tmp_path / "cut", rank=2)
        whole = load_file(run.save(child, tmp_path / "whole") / "model.safetensors")
    by_exact, by_cut = (merged_by_peft(bases["llama"], path) for path in (exact, cut))
    assert all((by_exact[n] - whole[n]).abs().max() <= 1e-6 for n in whole)
    assert any((by_cut[n] - whole[n]).abs().max() > 1e-3 for n in whole)


# Plain peft and nothing of ours: the most likely of single-letter choices.
SCORE = """
import json, sys, torch, peft
folder, task = sys.argv[1:]
model = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
vocabulary = {c: 4 + i for i, c in enumerate(%r)}
right = []
for row in map(json.loads, open(task)):
    ids = torch.tensor([[vocabulary[c] for c in row["prompt"]]])
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    choices = [float(logits[vocabulary[c]]) for c in row["choices"]]
    right.append(choices.index(max(choices)) == row["label"])
print(sum(right) / len(right), any(m.startswith(("evo", "operators", "cluster", "fitness")) for m in sys.modules))
""" % (CHARACTERS,)  # noqa: UP031


@pytest.mark.slow
def test_the_command_line_evolves_adapters_and_peft_scores_the_winner_the_same(
    bases, adapters, founders, tmp_path
):
    # The right choices are those of a mixture, so that no founder knows them and a child may.
    teacher = as_the_host_runs_it(mix(founders), founders)
    random = np.random.default_rng(0)
    for split, count in (("dev", 60), ("test", 100)):
        rows = []
        for i in range(count):
            prompt, choices = f"{split} {i} = ", random.permutation(list("abcdefgh"))[:4].tolist()
            ids = torch.tensor([[4 + CHARACTERS.index(c) for c in prompt]])
            with torch.no_grad():
                logits = teacher(ids).logits[0, -1]
            right = [float(logits[4 + CHARACTERS.index(c)]) for c in choices]
            rows.append({"prompt": prompt, "choices": choices, "label": int(np.argmax(right))})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"letters.{split}.jsonl").write_text(lines)
    config = {
        "base": str(bases["llama"]),
        "founders": {n: str(p) for n, p in adapters.items()},
        "tasks": [{"name": "letters", "files": "letters", "metric": "accuracy"}],
        "budget": {"evaluations": 60},
        "pool": {"kind": "local"},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))  # JSON is YAML

    def evo(*arguments):
        done = evo_command(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    evo("run", "run.yaml", "--run-dir", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    winner = summary["winner"]
    assert winner["test"] > max(b["test"] for b in summary["baselines"] if b["kind"] == "founder")
    said = evo("export", "run", winner["id"], "--out", "adapter", "--adapter")
    assert "matrices, exact" in said
    done = subprocess.run(
        [sys.executable, "-c", SCORE, tmp_path / "adapter", tmp_path / "letters.test.jsonl"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    score, ours_imported = done.stdout.split()
    assert ours_imported == "False"
    assert float(score) == winner["test"]
    cut = evo("export", "run", winner["id"], "--out", "cut", "--adapter", "--rank", "2")
    assert "LoRA of rank 2" in cut
    assert "% of ‖ΔW‖²" in cut


@pytest.mark.slow
def test_the_zoos_adapters_are_trained_and_found_again(tmp_path):
    from evo.zoo.adapters import adapter_plans, train_adapters
    from evo.zoo.build import build

    with pytest.raises(EvoError, match="first run: evo zoo build"):
        train_adapters(tmp_path / "zoo")
    build(tmp_path / "zoo", plan=tiny())
    plans = adapter_plans(steps=3)[:2]
    figures = train_adapters(tmp_path / "zoo", plans=plans)
    assert list(figures) == ["rev", "swap"]
    assert figures["rev"].keys() == {"rev", "trio"}
    paths = {n: tmp_path / "zoo" / "adapters" / n for n in figures}
    founders = load_founders(tmp_path / "zoo" / "base", paths)
    for entry in founders.founders:
        child = built(entry.founder, founders)
        expected = merged_by_peft(founders.base.path, entry.path)
        assert all((child[n] - expected[n]).abs().max() <= 1e-6 for n in child.layout.names)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "zoo").rglob("*")}
    assert train_adapters(tmp_path / "zoo") == figures
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "zoo").rglob("*")}
    with pytest.raises(EvoError, match="adapters of seed 0, not 1"):
        train_adapters(tmp_path / "zoo", seed=1)
