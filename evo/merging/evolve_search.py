"""The ``algorithm`` section of a run config, from a mergekit-evolve genome."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path

import yaml

from evo.merging.mergekit_evolve_format import EvolveConfig, EvolveGenome, EvolveModel
from evo.vocabulary.files import json_of
from operators.merge import MERGES

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")


def algorithm_lines(config: EvolveConfig, notes: list[str]) -> Iterator[str]:
    """The run config's ``algorithm``, a line each; what it does not take over is added to ``notes``."""
    genome = config.genome
    method = genome.merge_method
    if method == "slerp":
        pair = "its two models"
        if len(genome.models) > 2:
            pair = "the two models that score best alone (or all, with multislerp)"
        notes.append(
            f"genome.merge_method: slerp merges {pair} and searches t itself; mergekit-evolve takes "
            "the two models with the highest genes in each layer group, and t from their softmax"
        )
    yield "algorithm:"
    yield "  name: recipe_search"
    yield f"  method: {method}"
    if genome.layer_granularity > 0:
        yield from _groups(genome, notes)
    filters = _filters(genome, notes)
    if filters:
        yield f"  filters: {yaml_scalar(filters)}"
    yield from _parameters(genome, method, notes)
    notes.append(
        "--sigma0 (1/6): here 1/6 of the range in which a parameter is searched (algorithm.sigma0)"
    )
    if genome.layer_granularity > 0 or genome.filters:
        notes.append(
            "layer groups and filters: all share their genes at first, and part after a while; "
            "algorithm.first_stage: 0 searches all at once, as mergekit-evolve does"
        )
    if genome.smooth:
        notes.append("genome.smooth: every layer group has its own values, none in between")
    if config.random_init:
        notes.append("random_init: the search starts at algorithm.origin, by default 1/n each")


def _filters(genome: EvolveGenome, notes: list[str]) -> list[str]:
    """Those that can decide: the first that is in a tensor's name does."""
    kept: list[str] = []
    for index, name in enumerate(genome.filters or ()):
        if name == "*":  # every tensor, as the default that follows the filters
            break
        earlier = next((k for k in kept if k in name), None)
        if earlier is None:
            kept.append(name)
        else:
            notes.append(
                f"genome.filters[{index}]: {name!r} is left out, for {earlier!r} before it takes "
                "every tensor with that in its name"
            )
    return kept


def _groups(genome: EvolveGenome, notes: list[str]) -> Iterator[str]:
    size = genome.layer_granularity
    layers = next((n for m in _with_base(genome) if (n := _layers(m))), None)
    if layers is None:
        yield f"  # layer_groups:    # the number of layers / {size}"
        notes.append(
            f"genome.layer_granularity: {size}: no model is here to count its layers; set "
            f"algorithm.layer_groups to their number / {size}"
        )
        return
    yield f"  layer_groups: {ceil(layers / size)}    # {layers} layers, {size} in each"
    if layers % size:
        notes.append(
            f"genome.layer_granularity: {size} does not divide {layers} layers, which "
            "mergekit-evolve refuses; here the groups are as equal as can be"
        )


def _parameters(genome: EvolveGenome, method: str, notes: list[str]) -> Iterator[str]:
    """mergekit-evolve searches weight, density and t, and nothing else."""
    entry = MERGES[method]
    fixed: dict[str, bool | float] = {}
    usual = genome.merge_method in ("ties", "dare_ties", "linear")
    normalize = usual if genome.normalize is None else genome.normalize
    if entry.parameter("normalize") is not None:
        fixed["normalize"] = normalize
    elif genome.normalize is not None:
        notes.append(f"genome.normalize: {method} has no such parameter")
    if entry.parameter("lambda") is not None:
        fixed["lambda"] = 1.0
    if fixed:
        yield f"  params: {yaml_scalar(fixed)}    # not searched"
    weight = entry.parameter("weight")
    if genome.allow_negative_weights:
        if weight is None or weight.search is None:
            notes.append(f"genome.allow_negative_weights: {method} has no weights")
        else:
            most = max(abs(bound) for bound in weight.search)
            yield f"  bounds: {{weight: [{-most}, {most}]}}    # was allow_negative_weights"
    elif weight is not None and weight.search is not None:
        low, high = weight.search
        yield f"  bounds: {{weight: [{max(0.0, low)}, {high}]}}    # no allow_negative_weights"


def _with_base(genome: EvolveGenome) -> tuple[EvolveModel, ...]:
    return (*((genome.base_model,) if genome.base_model else ()), *genome.models)


def _layers(model: EvolveModel) -> int | None:
    config = json_of(Path(model.path).expanduser() / "config.json")
    inner = {**config, **(config.get("text_config") or {})}
    found = next((inner[key] for key in _LAYERS if key in inner), None)
    return found if isinstance(found, int) and found > 0 else None


def yaml_scalar(value: str | Sequence[str] | Mapping[str, object]) -> str:
    """YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
