"""An individual of a recipe search as mergekit's YAML, whose merge gives the same weights bit by bit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.founders.adapters import is_adapter
from cluster.founders.checkpoints import FounderSet, open_checkpoint
from evo.errors import EvoError
from evo.merging.recipe_file import DTYPES
from operators.merge import MERGES
from operators.recipe import Founder, Linear, Merge, ParameterValue, Recipe, Route, describe, walk
from operators.recipe.coefficients import Coefficient, Grouped, Rule, value_at
from operators.recipe.layers import follows_layers, layer_count, layer_index

_RESCALE = {"l1": True, "none": False}  # as mergekit says it; it has no word for inverse_density


def dump(
    recipe: Recipe,
    founders: Mapping[Founder, Path],
    tensors: Sequence[str],
    *,
    dtype: str = "",
) -> str:
    """``recipe`` as YAML for ``evo merge``, or for mergekit as far as it knows the method.

    A sum over founders is a ``linear`` that is not normalised, in the order in which the terms are
    added; a merge of founders is that method. Coefficients by layer become lists with one entry for
    each layer. ``tensors`` are the names of the model's tensors.

    Raises:
        EvoError: the recipe holds noise, or a merge of something else than founders.
    """
    content: dict[str, Any]
    match recipe:
        case Founder():
            content = {"merge_method": "passthrough", "models": [_model(recipe, founders, {})]}
        case Linear(terms):
            models = [_model(f, founders, {"weight": _value(c, tensors)}) for f, c in terms]
            content = {
                "merge_method": "linear",
                "models": models,
                "parameters": {"normalize": False},
            }
        case Merge():
            content = _merge(recipe, founders, tensors)
        case Route():
            raise EvoError(
                f"{describe(recipe)}: mergekit's YAML has no words for a path; export it as a checkpoint"
            )
        case _:
            raise EvoError(f"{describe(recipe)}: mergekit's YAML has no words for noise")
    if dtype:
        content["dtype"] = dtype
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def save_yaml(recipe: Recipe, founders: FounderSet, out: Path, *, dtype: str = "") -> None:
    """Write an individual of a run as YAML to the file ``out``; ``dtype`` is the run's, or the base's.

    Raises:
        EvoError: as :func:`dump`, a founder is an adapter, or ``out`` exists.
    """
    if out.exists():
        raise EvoError(f"{out}: exists already; choose another --out")
    paths = {f.founder: f.path.resolve() for f in founders.all_files()}
    for part in walk(recipe):
        if isinstance(part, Founder) and is_adapter(paths[part]):
            raise EvoError(
                f"{paths[part]}: is an adapter, and a static merge takes whole models. Export a "
                "checkpoint, or an adapter (--adapter)"
            )
    layout = open_checkpoint(founders.base.path).layout
    kinds = {str(s.dtype).removeprefix("torch.") for s in layout}
    own = kinds.pop() if len(kinds) == 1 else ""
    text = dump(recipe, paths, layout.names, dtype=dtype or (own if own in DTYPES else ""))
    head = f"# {describe(recipe)}\n# evo merge {out.name} --out FOLDER\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(head + text, encoding="utf-8")


def _model(part: Recipe, founders: Mapping[Founder, Path], parameters: dict[str, Any]) -> Any:
    if not isinstance(part, Founder):
        raise EvoError(
            f"{describe(part)} is a part of the individual: mergekit's YAML merges founders in one "
            "step, and has no words for noise or for merges of merges. Export a checkpoint instead"
        )
    model = {"model": str(founders[part])}
    return {**model, "parameters": parameters} if parameters else model


def _merge(
    recipe: Merge, founders: Mapping[Founder, Path], tensors: Sequence[str]
) -> dict[str, Any]:
    method = MERGES[recipe.method]
    if method.base != "none" and recipe.base in recipe.inputs:
        raise EvoError(
            f"{describe(recipe)}: its base is one of its inputs too, which mergekit's YAML can't say"
        )
    each: list[dict[str, Any]] = [{} for _ in recipe.inputs]
    shared: dict[str, Any] = {}
    for name, value in recipe.params:
        if isinstance(value, tuple):
            for parameters, v in zip(each, value, strict=True):
                parameters[name] = _value(v, tensors)
        else:
            shared[name] = _value(value, tensors)
    models = [_model(part, founders, p) for part, p in zip(recipe.inputs, each, strict=True)]
    content: dict[str, Any] = {"merge_method": recipe.method, "models": models}
    # mergekit's slerp starts from the base, which ours calls the first input.
    base = recipe.inputs[0] if recipe.method == "slerp" else recipe.base
    if base is not None:
        content["base_model"] = _model(base, founders, {})["model"]
    if shared:
        content["parameters"] = shared
    if method.seeded:
        content["random_seed"] = recipe.seed
    return content


def _value(value: ParameterValue, tensors: Sequence[str]) -> Any:
    if isinstance(value, Grouped):
        return _grouped(value, tensors)
    return _RESCALE.get(value, value) if isinstance(value, str) else value


def _grouped(value: Grouped, tensors: Sequence[str]) -> list[dict[str, Any]]:
    layers = layer_count(tensors)
    # A merge's YAML gives the first value of a list to every tensor outside the layers: those whose value
    # is another one get entries of their own, which must not match any other tensor.
    first = Grouped(tuple(Rule(r.filters, r.values[:1]) for r in value.rules))
    last = {
        tensor: number
        for tensor in tensors
        if follows_layers(tensor)
        and (number := value_at(value, tensor, layers)) != value_at(first, tensor, layers)
    }
    ambiguous = any(name in tensor and name != tensor for name in last for tensor in tensors)
    if ambiguous or any(len(rule.filters) > 1 for rule in value.rules):
        return _by_name(value, tensors, layers)
    made: list[dict[str, Any]] = [{"filter": name, "value": last[name]} for name in last]
    for rule in value.rules:
        one = len(rule.values) == 1 or not layers
        groups = len(rule.values)
        values = [rule.values[layer * groups // layers] for layer in range(layers)]
        entry = {"filter": rule.filters[0]} if rule.filters else {}
        made.append({**entry, "value": rule.values[0] if one else values})
    return made


def _by_name(value: Coefficient, tensors: Sequence[str], layers: int) -> list[dict[str, Any]]:
    """A value for every tensor: mergekit's filters are one piece of a name, not several.

    Long names first, as one name may be a part of another.
    """
    ordered = sorted(tensors, key=lambda name: (-len(name), layer_index(name) or 0, name))
    named = [{"filter": name, "value": value_at(value, name, layers)} for name in ordered]
    return [*named, {"value": 0.0}]
