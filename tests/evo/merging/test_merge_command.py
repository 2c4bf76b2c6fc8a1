"""`evo merge`: mergekit's YAML in, a checkpoint out; and individuals of a search as that YAML."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
import yaml
from golden import make_models
from golden.merge_cases import CASES, FOLDER, config_of, run_case
from places import EXAMPLES
from safetensors.torch import load_file, save_file
from tiny_lm import build_model, save
from toys import toy_config
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm_evo import evo

from cluster.founders.checkpoints import (
    CheckpointError,
    load_founders,
    map_founders,
    open_checkpoint,
)
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.merging import dump, merge_file
from evo.merging.folder import parse_size
from evo.merging.settings import resolve
from evo.reproduce.export import export_individual
from operators.build.materialize import Materializer
from operators.merge import MERGES, merge
from operators.merge.blocks import BLOCK, spans
from operators.merge.table import Values
from operators.merge.ties import keep_largest
from operators.recipe import Noise, linear
from operators.recipe.coefficients import Grouped, Rule

LAYER = re.compile(r"layers\.(\d+)\.")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder with tiny/base and tiny/e1 .. e4, as the golden configs name them."""
    folder = tmp_path_factory.mktemp("zoo")
    make_models.write_hf(str(folder / "tiny"))
    return folder


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def run(zoo, out, config, **options):
    """Merge ``config`` (a mapping or text) from a file in the folder of the models."""
    path = zoo / f"{out.name}.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
    merged = merge_file(path, out, **options)
    return tensors(merged.path)


@pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])
def test_golden_configs_give_the_reference_numbers(case, zoo, tmp_path):
    made = run(zoo, tmp_path / "out", (FOLDER / case["config"]).read_text())
    worst, tolerance = run_case(case, made)
    assert worst <= tolerance


def test_the_command_itself_reads_mergekits_yaml_and_writes_a_model_card(zoo, tmp_path):
    config = FOLDER / "configs" / "ties_d0.5_raw.yaml"
    done = evo("merge", config, "--out", tmp_path / "out", "--threads", 2, cwd=zoo)
    assert done.returncode == 0, done.stderr
    assert "39 tensors" in done.stdout
    case = next(c for c in CASES if c["id"] == "ties_d0.5_raw")
    worst, tolerance = run_case(case, tensors(tmp_path / "out"))
    assert worst <= tolerance
    card = (tmp_path / "out" / "README.md").read_text()
    assert config.read_text().strip() in card
    assert (tmp_path / "out" / "mergekit_config.yml").read_text() == config.read_text()


def test_the_example_merges(zoo, tmp_path):
    text = (EXAMPLES / "merge.yaml").read_text()
    for ours, theirs in (("base", "base"), ("swap", "e1"), ("alpha1", "e2")):
        text = text.replace(f"../demo/zoo/{ours}", f"tiny/{theirs}")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "demo/zoo" not in text
    made, e2 = run(zoo, tmp_path / "out", text), tensors(zoo / "tiny" / "e2")
    assert made.keys() == e2.keys()


def test_stochastic_methods_draw_by_seed_and_are_the_same_for_any_number_of_threads(zoo, tmp_path):
    config = config_of("configs/dare_ties.yaml")
    one = run(zoo, tmp_path / "one", {**config, "random_seed": 7})
    two = run(zoo, tmp_path / "two", config, seed=7, threads=2)
    other = run(zoo, tmp_path / "other", config, seed=8)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_slerp_goes_on_beyond_its_ends(zoo, tmp_path):
    models = [{"model": "tiny/base"}, {"model": "tiny/e1"}]
    config = {"merge_method": "slerp", "base_model": "tiny/base", "models": models}
    made = run(zoo, tmp_path / "out", {**config, "parameters": {"t": 1.5}, "dtype": "float32"})
    base, e1 = tensors(zoo / "tiny" / "base"), tensors(zoo / "tiny" / "e1")
    straight = 0
    for name, got in made.items():
        a, b = base[name].double(), e1[name].double()
        cosine = float((a * b).sum() / (a.norm() * b.norm()))
        angle = math.acos(cosine)
        if abs(cosine) > 0.9995:
            straight, want = straight + 1, -0.5 * a + 1.5 * b
        else:
            want = (math.sin(-0.5 * angle) * a + math.sin(1.5 * angle) * b) / math.sin(angle)
        assert torch.allclose(got.double(), want, rtol=1e-5, atol=1e-6), name
    assert 0 < straight < len(made)  # both formulas are seen


@pytest.mark.parametrize("rescale", [True, False])
def test_ties_rescales_what_it_keeps_to_the_sum_of_magnitudes(rescale, zoo, tmp_path):
    models = [{"model": f"tiny/{m}", "parameters": {"density": 0.3}} for m in ("e1", "e2")]
    config = {"merge_method": "ties", "base_model": "tiny/base", "models": models}
    params = {"rescale": rescale, "normalize": False}
    made = run(zoo, tmp_path / "out", {**config, "parameters": params, "dtype": "float32"})
    base, *near = (tensors(zoo / "tiny" / m) for m in ("base", "e1", "e2"))
    for name, got in made.items():
        kept = []
        for model in near:
            delta = (model[name] - base[name]).double().reshape(-1)
            least = delta.abs().sort(descending=True).values[int(0.3 * delta.numel()) - 1]
            part = torch.where(delta.abs() >= least, delta, 0.0)
            kept.append(part * (delta.abs().sum() / part.abs().sum() if rescale else 1.0))
        sign = torch.where(sum(kept) >= 0, 1.0, -1.0)
        want = base[name].double().reshape(-1) + sum(
            torch.where(part.sign() == sign, part, 0.0) for part in kept
        )
        assert torch.allclose(got.double().reshape(-1), want, rtol=1e-5, atol=1e-6), name


# What mergekit 0.1.4 takes for each method (save for the keys that it has for all), at values that no
# search explores by itself.
_TASK_VECTORS = {
    **{"weight": -0.5, "density": 1.5, "lambda": -2.0, "normalize": 1, "rescale": 1},
    "int8_mask": True,
}
MERGEKIT_OPTIONS = {
    "linear": {"weight": -0.5, "normalize": 0},
    "slerp": {"t": -0.5},
    "nuslerp": {"weight": -0.5, "nuslerp_row_wise": True, "nuslerp_flatten": False},
    "passthrough": {"scale": -1.0},
    "model_stock": {"filter_wise": True},
    "arcee_fusion": {},
    "karcher": {"max_iter": 5000, "tol": 0.1},
    "multislerp": {"weight": -0.5, "normalize_weights": 0, "eps": 0.01},
    "nearswap": {"t": -1.0},
    "sce": {"select_topk": 1.5, "int8_mask": True},
    **dict.fromkeys(
        ("task_arithmetic", "ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"),
        _TASK_VECTORS,
    ),
    **{key: {**_TASK_VECTORS, "gamma": 1.5} for key in ("breadcrumbs", "breadcrumbs_ties")},
    **{key: {**_TASK_VECTORS, "epsilon": -0.1} for key in ("della", "della_linear")},
}


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (m, name, value)
        for m, options in MERGEKIT_OPTIONS.items()
        for name, value in options.items()
    ],
)
def test_every_option_of_mergekits_methods_is_taken(method, name, value, zoo, tmp_path):
    least = MERGES[method].inputs[0]
    models = [{"model": f"tiny/e{i + 1}"} for i in range(least)]
    config = {"merge_method": method, "models": models, "parameters": {name: value}}
    if MERGES[method].base != "none":
        config["base_model"] = "tiny/base"
    made = run(zoo, tmp_path / "out", config)
    assert all(bool(torch.isfinite(t).all()) for t in made.values())


def test_lists_of_switches_are_interpolated_as_mergekit_does(zoo, tmp_path):
    models = [{"model": f"tiny/e{i}", "parameters": {"weight": 1.0}} for i in (1, 2)]
    config = {"merge_method": "linear", "models": models, "dtype": "torch.float32"}
    made = run(
        zoo, tmp_path / "out", {**config, "parameters": {"normalize": [True, False]}}
    )  # 1, 2/3, 1/3 and 0 at the four layers: on where it is not 0
    total = {
        n: t + tensors(zoo / "tiny" / "e2")[n] for n, t in tensors(zoo / "tiny" / "e1").items()
    }
    for name, got in made.items():
        layer = LAYER.search(name)
        last = layer is not None and layer.group(1) == "3"
        assert torch.allclose(got, total[name] if last else total[name] / 2, atol=1e-6), name


def test_stacked_slices_load_in_plain_transformers(zoo, tmp_path):
    run(zoo, tmp_path / "out", (FOLDER / "configs" / "passthrough_stack.yaml").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == len(model.model.layers) == 6
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a")["input_ids"]
    base, e1 = tensors(zoo / "tiny" / "base"), tensors(zoo / "tiny" / "e1")
    state = model.state_dict()
    for name, tensor in state.items():
        layer = LAYER.search(name)
        if layer is None:
            source, origin = (base if "embed" in name else e1), name
        else:
            at = int(layer.group(1))
            source = base if at < 3 else e1
            origin = LAYER.sub(f"layers.{at if at < 3 else at - 2}.", name)
        assert torch.equal(tensor, source[origin]), name


def test_stacked_gpt_neox_takes_its_output_head_from_the_last_slice(tmp_path):
    for value, model in ((1.0, "a"), (2.0, "b")):
        names = ("gpt_neox.embed_in", "gpt_neox.layers.0.attention.dense", "embed_out")
        (tmp_path / model).mkdir()
        made = {f"{n}.weight": torch.full((2, 2), value) for n in names}
        save_file(made, tmp_path / model / "model.safetensors")
    slices = [{"sources": [{"model": str(tmp_path / m), "layer_range": [0, 1]}]} for m in "ab"]
    made = run(tmp_path, tmp_path / "out", {"merge_method": "passthrough", "slices": slices})
    assert made["gpt_neox.embed_in.weight"][0, 0] == 1.0
    assert made["embed_out.weight"][0, 0] == 2.0


def test_slices_may_merge_and_have_parameters_of_their_own(zoo, tmp_path):
    sources = [
        {"model": "tiny/e1", "layer_range": [0, 2], "parameters": {"weight": 0.25}},
        {"model": "tiny/e2", "layer_range": [2, 4]},
    ]
    config = {
        "merge_method": "linear",
        "slices": [{"sources": sources, "parameters": {"weight": [0.5, 1.0]}}],
        "parameters": {"normalize": False, "weight": 9.0},
    }
    made = run(zoo, tmp_path / "out", config)
    e1, e2 = tensors(zoo / "tiny" / "e1"), tensors(zoo / "tiny" / "e2")
    name = "model.layers.{}.mlp.up_proj.weight"
    for layer, weight in ((0, 0.5), (1, 1.0)):
        want = 0.25 * e1[name.format(layer)] + weight * e2[name.format(layer + 2)]
        assert torch.allclose(made[name.format(layer)], want)
    assert name.format(2) not in made
    norm = "model.norm.weight"  # outside the layers: the first value of a list
    assert torch.allclose(made[norm], 0.25 * e1[norm] + 0.5 * e2[norm])


def test_lists_run_over_the_layers_and_the_first_filter_that_fits_decides(zoo, tmp_path):
    weight = [
        {"filter": "self_attn", "value": [0.0, 1.0]},
        {"filter": "proj", "value": 5.0},
        {"value": 2.0},
    ]
    config = {
        "merge_method": "linear",
        "models": [{"model": "tiny/e1", "parameters": {"weight": weight}}],
        "parameters": {"normalize": False},
    }
    made, e1 = run(zoo, tmp_path / "out", config), tensors(zoo / "tiny" / "e1")
    for layer in range(4):
        attention, mlp, norm = (
            f"model.layers.{layer}.{part}.weight"
            for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
        )
        assert torch.allclose(made[attention], layer / 3 * e1[attention])
        assert torch.equal(made[mlp], 5.0 * e1[mlp])
        assert torch.equal(made[norm], 2.0 * e1[norm])


def test_the_base_listed_as_a_model_is_no_input(zoo, tmp_path):
    config = config_of("configs/ties_d0.2_norm.yaml")
    plain = run(zoo, tmp_path / "plain", config)
    listed = {**config, "models": [{"model": "tiny/base"}, *config["models"]]}
    again = run(zoo, tmp_path / "listed", listed)
    assert all(torch.equal(plain[n], again[n]) for n in plain)


def test_slerp_starts_from_the_base_wherever_it_is_listed(zoo, tmp_path):
    config = config_of("configs/slerp_t0.25.yaml")
    plain = run(zoo, tmp_path / "plain", config)
    for name, models in (
        ("last", [*reversed(config["models"])]),
        ("unlisted", [{"model": "tiny/e1"}]),
    ):
        again = run(zoo, tmp_path / name, {**config, "models": models})
        assert all(torch.equal(plain[n], again[n]) for n in plain)


def test_dtype_is_that_of_the_files_and_out_dtype_goes_before_it(zoo, tmp_path):
    config = {"merge_method": "passthrough", "models": [{"model": "tiny/e1"}]}
    as_is = run(zoo, tmp_path / "as_is", config)
    e1 = tensors(zoo / "tiny" / "e1")
    assert all(torch.equal(as_is[n], t) for n, t in e1.items())
    made = run(zoo, tmp_path / "half", {**config, "dtype": "float32", "out_dtype": "bfloat16"})
    assert all(torch.equal(made[n], t.bfloat16()) for n, t in e1.items())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert model.dtype == torch.bfloat16


def test_shards_in_and_out(zoo, tmp_path):
    config = config_of("configs/task_arithmetic.yaml")
    whole = run(zoo, tmp_path / "whole", config)
    run(zoo, tmp_path / "shards", config, shard_bytes=1_000_000)
    files = sorted(f.name for f in (tmp_path / "shards").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) == 4
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "shards")
    assert all(torch.equal(model.state_dict()[n], t) for n, t in whole.items())
    again = {"merge_method": "linear", "models": [{"model": str(tmp_path / "shards")}]}
    assert all(torch.equal(t, whole[n]) for n, t in run(zoo, tmp_path / "again", again).items())


def test_integer_buffers_are_the_bases(zoo, tmp_path):
    for name, value in (("base", 3), ("e1", 4)):
        folder = tmp_path / name
        folder.mkdir()
        save_file(
            {"w": torch.full((2,), float(value)), "steps": torch.tensor(value)},
            folder / "model.safetensors",
        )
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "e1")}],
    }
    made = run(zoo, tmp_path / "out", config)
    assert int(made["steps"]) == 3
    assert made["w"].tolist() == [4.0, 4.0]


def test_an_empty_tensor_passes(zoo, tmp_path):
    (tmp_path / "m").mkdir()
    given = {"w": torch.ones(2), "none": torch.zeros(0, 3)}
    save_file(given, tmp_path / "m" / "model.safetensors")
    models = [{"model": str(tmp_path / "m")}] * 2
    made = run(zoo, tmp_path / "out", {"merge_method": "slerp", "models": models})
    assert made["none"].shape == (0, 3)
    assert torch.allclose(made["w"], torch.ones(2))


GOOD = """\
merge_method: ties
base_model: tiny/base
models:
  - model: tiny/e1
    parameters:
      weight: 0.5
  - model: tiny/e2
parameters:
  density: 0.5
dtype: float32
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("merge_method: ties", "merge_method: tie", r"line 1: unknown merge method 'tie'.*'ties'"),
        ("merge_method: ties\n", "", "merge_method is missing"),
        ("dtype:", "dtipe:", r"line 10: unknown key 'dtipe'\. Did you mean 'dtype'"),
        ("float32", "float31", r"line 10: dtype: must be one of float32.*'float31'"),
        ("density: 0.5", "densty: 0.5", r"line 9: unknown key 'densty'\. Did you mean 'density'"),
        (
            "density: 0.5",
            "density: -1",
            "line 9: ties: density must be finite and 0 or more, got -1",
        ),
        ("density: 0.5", "density: [0.5, -2]", "line 9: ties: density must be .* got -2"),
        ("density: 0.5", "density: much", r"line 9: density: 'much' is not a number"),
        ("density: 0.5", "density: [{filter: mlp}]", "line 9: density: value is missing"),
        ("weight: 0.5", "normalize: true", "line 6: normalize is one for all models"),
        ("weight: 0.5", "weight: yes", "line 6: ties: weight must be a number, got True"),
        ("model: tiny/e2", "model: tiny/e9", "line 7: model: no such folder 'tiny/e9'"),
        ("model: tiny/e2", "model: tiny/e2+lora", "line 7: .*adds the adapter 'lora'"),
        ("- model: tiny/e2", "- modell: tiny/e2", r"line 7: unknown key 'modell'"),
        ("base_model: tiny/base\n", "", r"line 2: ties: needs a base model; set base_model"),
        ("models:\n", "slices:\n", "line 4: unknown key 'model'"),
        ("dtype: float32", "dtype: float32\ndtype: float16", "line 11: 'dtype' is set twice"),
        ("dtype: float32", "modules: {}", "line 10: modules: not supported"),
        ("dtype: float32", "tokenizer_source: tiny/x", "line 10: tokenizer source: no such folder"),
        ("dtype: float32", "slices: []", "give either models or slices"),
        ("dtype: float32", "dtype: [", "line 11: not valid YAML"),
        ("merge_method: ties", "merge_method: nearswap", "line 6: unknown key 'weight'"),
        ("merge_method: ties", "merge_method: linear", "line 2: linear has no base: list"),
    ],
)
def test_mistakes_are_named_with_their_line_and_nothing_is_written(old, new, says, zoo, tmp_path):
    with pytest.raises(EvoError, match=says):
        run(zoo, tmp_path / "out", GOOD.replace(old, new, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"merge_method": "slerp", "base_model": "tiny/e3"},
            "line .: slerp: takes 2 models, got 3",
        ),
        ({"merge_method": "nearswap", "base_model": "tiny/e3"}, "nearswap: takes 1 models, got 2"),
        ({"merge_method": "karcher", "base_model": "tiny/e3"}, "line 2: karcher has no base: list"),
    ],
)
def test_methods_take_their_number_of_models(config, says, zoo, tmp_path):
    models = [{"model": "tiny/e1"}, {"model": "tiny/e2"}]
    with pytest.raises(EvoError, match=says):
        run(zoo, tmp_path / "out", {**config, "models": models})


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        (([0, 2], [1, 4]), "all sources of a slice must have as many layers"),
        (([0, 5], [0, 5]), r"layer_range \[0, 5\]: .*e1 has 4 layers"),
        (([2, 2], [0, 2]), r"layer_range: \[2, 2\] holds no layers"),
        (([0], [0, 2]), "expected .first, one past the last."),
    ],
)
def test_layer_ranges_that_do_not_fit(ranges, says, zoo, tmp_path):
    sources = [{"model": f"tiny/e{i + 1}", "layer_range": r} for i, r in enumerate(ranges)]
    config = {"merge_method": "linear", "slices": [{"sources": sources}]}
    with pytest.raises(EvoError, match=says):
        run(zoo, tmp_path / "out", config)


def test_what_has_no_effect_is_told(zoo, tmp_path):
    path = zoo / "notes.yaml"
    path.write_text(GOOD.replace("density: 0.5", "density: 0.5\n  int8_mask: true"))
    assert any("int8_mask" in note for note in merge_file(path, tmp_path / "out").notes)


def test_a_folder_that_is_there_is_not_overwritten(zoo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(EvoError, match="exists already"):
        run(zoo, tmp_path / "out", GOOD)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_damaged_model_is_named_and_nothing_is_left(zoo, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    whole = (zoo / "tiny" / "e1" / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: not a readable safetensors file"
    ):
        run(zoo, tmp_path / "out", GOOD.replace("tiny/e2", str(damaged)))
    assert [f.name for f in tmp_path.iterdir()] == ["damaged"]


def test_tensors_that_only_some_models_have_are_named(zoo, tmp_path):
    tied = tmp_path / "tied"
    tied.mkdir()
    kept = {n: t for n, t in tensors(zoo / "tiny" / "e1").items() if n != "lm_head.weight"}
    save_file(kept, tied / "model.safetensors")
    with pytest.raises(EvoError, match=r"(lm_head.weight|head).*tokenizer_source"):
        run(zoo, tmp_path / "out", GOOD.replace("tiny/e2", str(tied)))


def test_models_of_different_vocabularies_are_refused_or_aligned_by_string(zoo, tmp_path):
    grown = tmp_path / "grown"
    grown.mkdir()
    e1 = tensors(zoo / "tiny" / "e1")
    more = {n: torch.cat([e1[n], torch.ones(1, 64)]) for n in e1 if e1[n].shape[0] == 128}
    save_file(e1 | more, grown / "model.safetensors")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        data = json.loads((zoo / "tiny" / "e1" / file).read_text())
        if file == "tokenizer.json":
            data["model"]["vocab"]["<new>"] = 128
        elif file == "config.json":
            data["vocab_size"] = 129
        (grown / file).write_text(json.dumps(data))
    config = {
        "merge_method": "linear",
        "models": [{"model": "tiny/e2"}, {"model": str(grown)}],
    }
    with pytest.raises(EvoError, match="tokenizer_source: union"):
        run(zoo, tmp_path / "out", config)
    made = run(zoo, tmp_path / "out", {**config, "tokenizer_source": "union"})
    assert made["lm_head.weight"].shape[0] == 129
    assert torch.equal(made["lm_head.weight"][128], torch.ones(64))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == len(tokenizer) == 129


def test_merging_imports_nothing_heavy_but_torch_and_needs_less_memory_than_a_model(zoo, tmp_path):
    """Memory is what the process holds beyond mapped files, at its peak; models are of 50M parameters."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(24)]
    noise = torch.randn(2048, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    for place, model in enumerate(("base", "a", "b")):
        folder = tmp_path / model
        folder.mkdir()
        made = {n: noise.roll(97 * place + i) for i, n in enumerate(names)}
        save_file(made, folder / "model.safetensors")
    size = 24 * 2048 * 1024 * 2
    for method in ("ties", "model_stock"):
        config = {
            "merge_method": method,
            "base_model": "base",
            "models": [{"model": m} for m in "ab"],
        }
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, tmp_path / "m.yaml", tmp_path / method],
            capture_output=True,
            text=True,
            timeout=120,
            env={"OMP_NUM_THREADS": "1", "PATH": ""},
        )
        assert done.returncode == 0, done.stderr
        heavy, grown = json.loads(done.stdout)
        assert heavy == []
        assert 0 < grown < (0.25 if MERGES[method].blocks else 1.0) * size


MEASURED = """
import json, sys, threading
from pathlib import Path
from evo.merging import merge_file

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))

before, peak, done = anonymous(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
merge_file(Path(sys.argv[1]), Path(sys.argv[2]))
done.set()
watcher.join()
heavy = [m for m in ("ray", "transformers", "pandas", "pyarrow", "pydantic") if m in sys.modules]
print(json.dumps([heavy, peak[0] - before]))
"""


@pytest.fixture(scope="module")
def llamas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llamas")
    names = ("base", "a", "b")
    paths = {n: save(folder / n, build_model("llama", seed=i)) for i, n in enumerate(names)}
    return load_founders(paths["base"], {n: paths[n] for n in ("a", "b")})


@pytest.mark.parametrize("kind", ["untied", "tied", "gpt2", "bare"])
def test_layer_groups_as_yaml_merge_to_the_same_bits_from_the_embedding_to_the_head(kind, tmp_path):
    """``bare`` names are parts of each other: ``norm.weight``, ``layers.0.input_layernorm.weight``."""
    paths = {}
    for i, name in enumerate(("base", "a", "b")):
        model = build_model("gpt2" if kind == "gpt2" else "llama", seed=i, tied=kind != "untied")
        paths[name] = save(tmp_path / name, model)
        if kind == "bare":
            file = paths[name] / "model.safetensors"
            named = {n.removeprefix("model."): t + i for n, t in load_file(file).items()}
            save_file(named, file, {"format": "pt"})
    known = load_founders(paths["base"], {n: paths[n] for n in ("a", "b")})
    a, b = (f.founder for f in known.founders)
    by_group = Grouped((Rule(("norm",), (0.2, 0.6)), Rule((), (0.1, 0.8))))
    recipe = merge("ties", [a, b], base=known.base.founder, params={"weight": (by_group, 0.5)})
    check_same_bits(recipe, known, tmp_path)
    (tmp_path / "sum").mkdir()
    check_same_bits(linear({a: by_group, b: BY_LAYER}), known, tmp_path / "sum")


BY_LAYER = Grouped((Rule(("self_attn",), (0.1, 0.7)), Rule((), (0.3, 0.9))))
BY_MORE = Grouped((Rule(("mlp", "up_proj"), (0.25, 0.5)), Rule((), (0.3, 0.1, 0.2))))


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b, base: a,
        lambda a, b, base: linear({a: 0.7, b: -0.2, base: 0.1 + 0.2}),
        lambda a, b, base: linear({b: BY_LAYER, a: BY_MORE}),
        lambda a, b, base: merge("slerp", [b, a], params={"t": BY_LAYER}),
        lambda a, b, base: merge("slerp", [a, b], params={"t": 1 / 3}),
        lambda a, b, base: merge(
            "ties", [b, a], base=base, params={"density": (BY_MORE, 0.3), "lambda": 1.1}
        ),
        lambda a, b, base: merge(
            "dare_ties", [a, b], base=base, params={"density": (0.3, BY_LAYER)}, seed=12345
        ),
        lambda a, b, base: merge(
            "dare_linear", [a], base=base, params={"density": 0.4, "rescale": "none"}, seed=3
        ),
        lambda a, b, base: merge("multislerp", [a, b], base=base, params={"weight": (0.2, 0.7)}),
    ],
    ids=[
        "founder",
        "sum",
        "grouped",
        "slerp_grouped",
        "slerp",
        "ties",
        "dare_ties",
        "dare_linear",
        "multislerp",
    ],
)
def test_an_individual_as_yaml_merges_to_the_same_bits(make, llamas, tmp_path):
    a, b = (f.founder for f in llamas.founders)
    check_same_bits(make(a, b, llamas.base.founder), llamas, tmp_path)


OF_WHOLE_MODELS = [m for m in MERGES.values() if m.name != "evo_lora_published"]


@pytest.mark.parametrize("method", OF_WHOLE_MODELS, ids=lambda m: m.name)
def test_every_method_streams_to_the_bits_that_a_host_builds(method, llamas, tmp_path):
    inputs = [f.founder for f in llamas.founders][: method.inputs[1]]
    base = None if method.base == "none" else llamas.base.founder
    check_same_bits(merge(method.name, inputs, base=base, seed=2), llamas, tmp_path)


def test_a_method_of_adapters_is_refused_for_whole_models(llamas, tmp_path):
    a, b = (f.founder for f in llamas.founders)
    recipe = merge("evo_lora_published", [a, b], base=llamas.base.founder)
    path = tmp_path / "individual.yaml"
    path.write_text(dump(recipe, {f.founder: f.path for f in llamas.all_files()}, ["w"]))
    with pytest.raises(EvoError, match="needs LoRA adapters"):
        merge_file(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def check_same_bits(recipe, llamas, folder):
    paths = {f.founder: f.path for f in llamas.all_files()}
    weights = map_founders(llamas.all_files())
    layout = weights[llamas.base.founder].layout
    want = Materializer(layout, weights).build(recipe)
    path = folder / "individual.yaml"
    path.write_text(dump(recipe, paths, layout.names))
    merge_file(path, folder / "out")
    got = open_checkpoint(folder / "out")
    assert got.layout == layout
    for name in layout.names:
        assert torch.equal(got[name].view(torch.int32), want[name].view(torch.int32)), name


def test_what_yaml_can_not_say_is_refused(llamas):
    paths = {f.founder: f.path for f in llamas.all_files()}
    a, b = (f.founder for f in llamas.founders)
    inner = merge("slerp", [a, b])
    for recipe, says in (
        (linear({a: 1.0, Noise(1): 0.1}), "no words for noise"),
        (Noise(1), "no words for noise"),
        (linear({a: 0.5, inner: 0.5}), "one step"),
        (merge("slerp", [inner, b]), "one step"),
        (merge("ties", [a, b], base=a), "its base is one of its inputs"),
    ):
        with pytest.raises(EvoError, match=says):
            dump(recipe, paths, ["w"])


def test_export_to_a_yaml_file_merges_to_the_exported_checkpoint(tmp_path):
    algorithm = {"name": "recipe_search"}
    config = toy_config(tmp_path / "f", algorithm=algorithm, budget={"evaluations": 12})
    with Evolution(config, tmp_path / "run") as evolution:
        list(evolution)
        best = evolution.lineage.find("best")
        evolution.save(best, tmp_path / "best")
    export_individual(tmp_path / "run", best, tmp_path / "best.yaml")
    merge_file(tmp_path / "best.yaml", tmp_path / "merged")
    want, got = (open_checkpoint(tmp_path / name) for name in ("best", "merged"))
    assert got.layout == want.layout
    assert all(torch.equal(got[n], want[n]) for n in want.layout.names)


@pytest.mark.parametrize("method", [m for m in MERGES.values() if m.blocks], ids=lambda m: m.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blocks_give_the_bits_that_whole_tensors_give_with_any_number_of_threads(method, dtype):
    generator = torch.Generator().manual_seed(1)
    shape = (3, BLOCK - 41)  # four blocks, the last one short; many equal magnitudes
    base = torch.randn(shape, generator=generator).mul(8).round().div(8).to(dtype)
    inputs = [
        (base.float() + torch.randn(shape, generator=generator).mul(4).round().div(64)).to(dtype)
        for _ in range(2)
    ]
    params = {p.name: 0.3 for p in method.parameters if p.name in ("density", "weight", "t")}
    values = Values(dict(resolve(method, 2, method.base != "none", params)))
    threads = torch.get_num_threads()
    try:
        made = []
        for count in (1, 4):
            torch.set_num_threads(count)
            whole = method.function([x.float() for x in inputs], base.float(), values, 5, "x")
            blocks = method.blocks(inputs, base, values, 5, "x")
            ends = list(spans(base.numel()))
            pieces = {start: blocks(start, stop) for start, stop in reversed(ends)}
            made += [whole.view(-1), torch.cat([pieces[start] for start, _ in ends])]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.999])
def test_ties_keeps_the_earlier_of_equal_magnitudes_across_blocks(density):
    delta = torch.ones(2 * BLOCK + 7)
    delta[::3] = -1.0
    delta[BLOCK - 1] = 2.0
    kept = keep_largest(delta, density)
    count = max(1, int(density * delta.numel()))
    order = sorted(range(delta.numel()), key=lambda i: (-abs(float(delta[i])), i))
    want = torch.zeros_like(delta)
    want[order[:count]] = delta[order[:count]]
    assert torch.equal(kept, want)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), ("4096", 4096), ("200mb", 200 * 10**6)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0GB", "GB", "-1GB", "five"])
def test_sizes_that_are_none(text):
    with pytest.raises(EvoError, match="expected a size"):
        parse_size(text)
