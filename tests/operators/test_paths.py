"""Data-flow paths on real (tiny, random) models of every known architecture."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from path_models import CONFIGS, WINDING, A, B, Pair, pair

from cluster.founders.checkpoints import FounderSet, load_founders
from evo.errors import EvoError
from evo.export.checkpoint import export
from evo.export.lora import export_adapter
from evo.merging.as_yaml import dump
from fitness.engines.hf.paths import PathModel
from operators.build.architectures import (
    ARCHITECTURES,
    ArchitectureError,
    architecture_of,
    path_config,
)
from operators.build.paths import LayerPath, folded
from operators.recipe import Founder, Route, Step, describe, linear
from operators.recipe.canonical import from_json, to_json

IDS = torch.randint(3, 64, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=CONFIGS, scope="module")
def models(request: pytest.FixtureRequest) -> Pair:
    return pair(request.param)


def shell(models: Pair, route: Route) -> Any:
    path = models.lay(route)
    made = PathModel(models.models[A], path.layers, "cpu")
    made.install(path)
    return made.model


def exported(models: Pair, path: LayerPath) -> Any:
    """Plain transformers, given what an export writes: config and folded tensors."""
    config = models.config.to_dict() | path_config(models.config.to_dict(), path.layers)
    tensors = dict(folded(path, models.architecture))
    config["tie_word_embeddings"] = models.architecture.output_head not in tensors
    plain: Any = transformers.AutoModelForCausalLM.from_config(
        type(models.config).from_dict(config)
    ).eval()
    missing = plain.load_state_dict(tensors, strict=False).missing_keys
    plain.tie_weights()
    assert not missing or missing == [models.architecture.output_head]
    return plain


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


def generate(model: Any, *, cache: bool = True, count: int = 12) -> torch.Tensor:
    with torch.inference_mode():
        return model.generate(
            IDS,
            attention_mask=torch.ones_like(IDS),
            max_new_tokens=count,
            do_sample=False,
            use_cache=cache,
            eos_token_id=None,
            pad_token_id=0,
        )


def test_there_is_a_model_of_every_known_architecture():
    assert set(CONFIGS) == set(ARCHITECTURES)


def test_a_models_own_path_is_the_model(models):
    own = Route(A, tuple(Step(A, i) for i in range(4)), A)
    assert torch.equal(logits(shell(models, own)), logits(models.models[A]))


def test_a_path_that_repeats_layers_generates_with_a_cache_what_it_does_without(models):
    model = shell(models, WINDING)
    assert torch.equal(generate(model), generate(model, cache=False))


def test_the_folded_checkpoint_gives_the_same_logits_and_the_same_texts(models):
    path = models.lay(WINDING)
    ours, plain = shell(models, WINDING), exported(models, path)
    assert float((logits(ours) - logits(plain)).abs().max()) < 2e-5
    assert torch.equal(generate(ours), generate(plain))


def test_scales_and_order_matter(models):
    base = logits(shell(models, WINDING))
    flat = Route(A, tuple(Step(s.recipe, s.layer) for s in WINDING.steps), B)
    turned = Route(A, WINDING.steps[::-1], B)
    for other in (flat, turned):
        assert float((logits(shell(models, other)) - base).abs().max()) > 0.1


def test_a_path_is_its_layers_one_after_the_other_with_the_stream_scaled():
    """Against the layers called by hand, for an architecture where that is five lines."""
    models = pair("llama")
    inner = models.models[A].model
    with torch.inference_mode():
        stream = inner.embed_tokens(IDS)
        places = torch.arange(IDS.shape[1])[None]
        rotary = inner.rotary_emb(stream, position_ids=places)
        for step in WINDING.steps:
            layer = models.models[step.recipe].model.layers[step.layer]
            out = layer(stream * step.scale, position_embeddings=rotary, attention_mask=None)
            stream = out[0] if isinstance(out, tuple) else out
        owner = models.models[B]
        by_hand = owner.lm_head(owner.model.norm(stream))
    assert torch.allclose(logits(shell(models, WINDING)), by_hand, atol=1e-5)


def test_a_path_holds_no_copy_of_a_layer(models):
    path = models.lay(WINDING)
    owned = {t.data_ptr() for w in models.weights.values() for t in w.tensors.values()}
    assert all(t.data_ptr() in owned for t in path.weights.tensors.values())


def test_steps_may_use_merged_models(models):
    merged = linear({A: 0.5, B: 0.5})
    route = Route(A, (Step(A, 0), Step(merged, 1), Step(merged, 2), Step(B, 3)), A)
    assert torch.isfinite(logits(shell(models, route))).all()
    rest = next(n for n in models.weights[A].layout.names if models.architecture.split(n))
    layer, inside = models.architecture.split(rest)
    path = models.lay(Route(A, (Step(merged, layer),), A))
    mean = (models.weights[A][rest] + models.weights[B][rest]) / 2
    assert torch.allclose(path.weights[models.architecture.name(0, inside)], mean, atol=1e-6)


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gemma3_text"])
def test_every_step_keeps_its_layers_kind_of_attention(name):
    config = CONFIGS[name]().to_dict()
    kinds = config["layer_types"]
    assert len(set(kinds)) == 2
    changed = path_config(config, [3, 3, 0, 1, 2, 0])
    assert changed["num_hidden_layers"] == 6
    assert changed["layer_types"] == [kinds[i] for i in (3, 3, 0, 1, 2, 0)]


def test_checkpoints_of_the_bare_model_are_understood():
    models = pair("gpt2")
    bare = {
        f: type(w)(
            type(w.layout)(
                tuple(
                    sorted(
                        (
                            type(s)(s.name.removeprefix("transformer."), s.shape, s.dtype)
                            for s in w.layout
                        ),
                        key=lambda s: s.name,
                    )
                )
            ),
            {n.removeprefix("transformer."): t for n, t in w.tensors.items()},
        )
        for f, w in models.weights.items()
    }
    small = Pair(models.config, models.models, bare, models.architecture)
    route = Route(A, WINDING.steps, A)
    assert torch.equal(logits(shell(small, route)), logits(shell(models, route)))


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ArchitectureError, match=r"'rwkv'.*llama, mistral, qwen2"):
        architecture_of({"model_type": "rwkv"})


def test_gpt2_whose_attention_depends_on_the_layers_number_is_refused():
    config = CONFIGS["gpt2"]().to_dict() | {"scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(ArchitectureError, match="scale_attn_by_inverse_layer_idx"):
        architecture_of(config)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ArchitectureError, match="step 1 wants layer 9 of a model with 4"):
        pair("llama").lay(Route(A, (Step(A, 0), Step(B, 9)), A))


def test_a_path_is_a_recipe_that_survives_json():
    merged = linear({A: 0.25, B: 0.75})
    route = Route(A, (Step(A, 0), Step(merged, 1, 0.5), Step(merged, 1, 0.5)), merged)
    again = from_json(to_json(route))
    assert again == route
    assert again.steps == route.steps
    assert describe(Route(A, (Step(A, 0), Step(A, 1), Step(B, 1, 0.7)), A)) == "a[0:2] → b[1]×0.7"


def test_a_path_differs_by_any_of_its_parts():
    steps = WINDING.steps
    scaled = (Step(steps[0].recipe, steps[0].layer, 1.01), *steps[1:])
    others = [Route(B, steps, B), Route(A, steps, A), Route(A, steps[1:], B), Route(A, scaled, B)]
    assert len({WINDING.id, *(o.id for o in others)}) == 5


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_are_positive(scale):
    with pytest.raises(ValueError, match="positive and finite"):
        Step(A, 0, scale)


def test_a_path_has_no_weights_to_sum():
    with pytest.raises(ValueError, match="no weights to sum"):
        linear({WINDING: 0.5, A: 0.5})
    with pytest.raises(ValueError, match="no weights to sum"):
        Route(A, (Step(WINDING, 0),), A)
    with pytest.raises(ValueError, match="at least one step"):
        Route(A, (), A)


def test_winding_has_what_it_is_for():
    assert len({(s.recipe, s.layer) for s in WINDING.steps}) < len(WINDING.steps)
    assert any(b.layer < a.layer for a, b in pairwise(WINDING.steps))


def saved(models: Pair, folder: Path) -> FounderSet:
    for founder, model in models.models.items():
        model.save_pretrained(folder / founder.name)
    return load_founders(folder / "a", {"a": folder / "a", "b": folder / "b"})


def route_over(files: FounderSet, steps: Sequence[Step]) -> Route:
    """``steps``, which name A and B, through the saved models."""
    own = {Founder(f.founder.name, "0"): f.founder for f in files.founders}
    return Route(own[A], tuple(Step(own[s.recipe], s.layer, s.scale) for s in steps), own[B])


def load(folder: Path) -> Any:
    plain, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return plain.eval()


def test_a_path_shorter_than_its_models_exports_only_its_own_layers(models, tmp_path):
    files = saved(models, tmp_path)
    route = route_over(files, (Step(A, 1), Step(B, 3, 0.8)))
    export(route, files, tmp_path / "out")
    plain = load(tmp_path / "out")
    ours = shell(models, Route(A, (Step(A, 1), Step(B, 3, 0.8)), B))
    assert float((logits(ours) - logits(plain)).abs().max()) < 3e-5


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gemma3_text"])
def test_configs_that_tell_layer_kinds_by_a_rule_are_exported_right(name, tmp_path):
    """As checkpoints older than transformers 5 are."""
    models = pair(name)
    files = saved(models, tmp_path)
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    del config["layer_types"]
    if name == "gemma3_text":
        config["sliding_window_pattern"] = 2
    path.write_text(json.dumps(config))
    engine_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    laid = models.lay(WINDING)
    made = PathModel(engine_model, laid.layers, "cpu")
    made.install(laid)
    export(route_over(files, WINDING.steps), files, tmp_path / "out")
    long = torch.randint(3, 64, (2, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        difference = (made.model(long).logits - load(tmp_path / "out")(long).logits).abs().max()
    assert float(difference) < 3e-5


def test_what_is_no_path_refuses_one(tmp_path):
    models = pair("llama")
    files = saved(models, tmp_path)
    route = route_over(files, WINDING.steps)
    with pytest.raises(EvoError, match="data-flow path, which no adapter can be"):
        export_adapter(route, files, tmp_path / "adapter", rank=4)
    assert not (tmp_path / "adapter").exists()
    with pytest.raises(EvoError, match="no words for a path"):
        dump(route, {}, ())


def test_scales_that_the_weights_cannot_hold_are_refused(tmp_path):
    models = pair("llama")
    files = saved(models, tmp_path)
    steps = tuple(Step(A, i % 4, 0.05) for i in range(12))
    with pytest.raises(EvoError, match="infinite values in float16"):
        export(route_over(files, steps), files, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_shell_that_waits_holds_no_tensors():
    models = pair("llama")
    path = models.lay(WINDING)
    made = PathModel(models.models[A], path.layers, "cpu")
    made.install(path)
    made.release()
    assert sum(p.numel() for p in made.model.parameters()) == 0
    made.install(path)
    assert torch.equal(logits(made.model), logits(shell(models, WINDING)))
