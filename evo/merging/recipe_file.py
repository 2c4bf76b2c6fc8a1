"""A merge's YAML, in mergekit's words, as checked dataclasses. Errors name the file and the line."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from evo.merging.settings import Settings, SettingsReader, resolve
from evo.merging.yaml_nodes import YamlValue, read
from operators.merge import MergeMethod, method_named

KEYS = (
    *("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "random_seed"),
)
DTYPES = ("float32", "float16", "bfloat16")
_REFUSED = {
    "modules": "models of several modules can't be merged part by part; use models",
    "chat_template": "edit the tokenizer of the merged model instead",
}
# mergekit's slerp goes from the base to the other model; elsewhere a base is no input.
_BASE_IS_FIRST = ("slerp",)


@dataclass(frozen=True, slots=True)
class SliceSource:
    """One model's part of a slice: layers [start, stop), or all of the model if ``stop`` is None."""

    path: Path
    node: YamlValue
    start: int = 0
    stop: int | None = None
    parameters: Settings | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Layers of the output: the inputs in order, and the base where the method has one."""

    inputs: tuple[SliceSource, ...]
    base: SliceSource | None
    parameters: Settings
    node: YamlValue

    @property
    def sources(self) -> tuple[SliceSource, ...]:
        return self.inputs if self.base is None else (*self.inputs, self.base)


@dataclass(frozen=True, slots=True)
class MergeFile:
    """A checked merge: what is merged how, by which ``parameters`` where a slice sets no others.

    ``donor`` is the model whose config and tokenizer the output gets; ``tokenizer`` is where another
    tokenizer comes from: "union", or a model's folder. ``notes`` are for the user.
    """

    path: Path
    text: str
    method: MergeMethod
    slices: tuple[Slice, ...]
    parameters: Settings
    donor: Path
    dtype: str
    tokenizer: Path | str | None
    seed: int
    notes: tuple[str, ...]


def load(path: Path) -> MergeFile:
    """Read and check a merge's YAML. Model folders are sought from here, then from beside the file.

    Raises:
        EvoError: something in it is wrong; the message names the file, the line and the remedy.
    """
    root, text = read(path)
    keys = root.mapping("the recipe", (*KEYS, *_REFUSED))
    for key, why in _REFUSED.items():
        if key in keys:
            keys[key].fail(f"{key}: not supported: {why}")
    if "merge_method" not in keys:
        root.fail("merge_method is missing")
    reader = _Reader(keys["merge_method"])
    if ("models" in keys) == ("slices" in keys):
        root.fail("give either models or slices")
    base = reader.model(keys["base_model"], "base_model") if "base_model" in keys else None
    if "models" in keys:
        slices = [reader.models(keys["models"], base)]
    else:
        slices = [reader.slice(node, base) for node in keys["slices"].items("slices")]
    shared = reader.settings.read(keys.get("parameters"), one_model=False)
    kinds = [_dtype(keys[k], k) for k in ("out_dtype", "dtype") if k in keys]
    first = base or slices[0].inputs[0]
    return MergeFile(
        path,
        text,
        reader.method,
        tuple(slices),
        shared,
        first.path,
        kinds[0] if kinds else "",
        _tokenizer(reader, keys, base),
        keys["random_seed"].integer("random_seed") if "random_seed" in keys else 0,
        tuple(dict.fromkeys(reader.settings.notes)),
    )


class _Reader:
    """Reads the parts of a recipe, all for one method."""

    def __init__(self, method: YamlValue) -> None:
        name = method.text("merge_method")
        try:
            self.method = method_named(name)
        except ValueError as error:
            method.fail(str(error))
        self.settings = SettingsReader(self.method)

    def model(self, node: YamlValue, what: str) -> SliceSource:
        name = node.text(what)
        places = [Path(name).expanduser(), node.path.parent / name]
        one_file = name.endswith(".safetensors")
        found = next((p for p in places if p.is_dir() or (one_file and p.is_file())), None)
        return SliceSource(found or self._no_model(node, name, what), node)

    def _no_model(self, node: YamlValue, name: str, what: str) -> NoReturn:
        model, plus, adapter = name.partition("+")
        if plus and any((folder / model).is_dir() for folder in (Path(), node.path.parent)):
            node.fail(
                f"{what}: {name!r} adds the adapter {adapter!r}, which a static merge can't; merge "
                "it into its base first (evo export, or peft's merge_and_unload)"
            )
        node.fail(
            f"{what}: no such folder {name!r}, neither here nor beside the file. Models are local "
            "folders; for one of the Hugging Face hub, first: hf download NAME --local-dir FOLDER"
        )

    def models(self, node: YamlValue, base: SliceSource | None) -> Slice:
        sources = []
        for entry in node.items("models"):
            keys = entry.mapping("a model", ("model", "parameters"))
            if "model" not in keys:
                entry.fail("model is missing: the folder of a checkpoint")
            source = self.model(keys["model"], "model")
            settings = self.settings.read(keys.get("parameters"), one_model=True)
            sources.append(replace(source, parameters=settings))
        return self._arranged(node, sources, base, {}, sliced=False)

    def slice(self, node: YamlValue, base: SliceSource | None) -> Slice:
        known = ("sources", "base_model", "parameters")
        keys = node.mapping("a slice", (*known, "residual_weight"))
        if "residual_weight" in keys:
            keys["residual_weight"].fail("residual_weight: not supported (mergekit ignores it)")
        if "sources" not in keys:
            node.fail("sources is missing: a list of model and layer_range")
        sources = []
        for entry in keys["sources"].items("sources"):
            inner = entry.mapping("a source", ("model", "layer_range", "parameters"))
            for key in ("model", "layer_range"):
                if key not in inner:
                    entry.fail(f"{key} is missing")
            start, stop = _layer_range(inner["layer_range"])
            source = self.model(inner["model"], "model")
            settings = self.settings.read(inner.get("parameters"), one_model=True)
            sources.append(replace(source, start=start, stop=stop, parameters=settings))
            first = sources[0]
            if first.stop is not None and stop - start != first.stop - first.start:
                inner["layer_range"].fail("all sources of a slice must have as many layers")
        if "base_model" in keys:
            base = self.model(keys["base_model"], "base_model")
        settings = self.settings.read(keys.get("parameters"), one_model=False)
        return self._arranged(node, sources, base, settings, sliced=True)

    def _arranged(
        self,
        node: YamlValue,
        sources: list[SliceSource],
        base: SliceSource | None,
        parameters: Settings,
        *,
        sliced: bool,
    ) -> Slice:
        """Inputs and base as the method takes them; a base listed as a model is no input too."""
        method = self.method
        if base is not None:
            listed = [s for s in sources if s.path.resolve() == base.path.resolve()]
            others = [s for s in sources if s not in listed]
            ranges = {(s.start, s.stop) for s in sources}
            if not listed and len(ranges) > 1 and method.base != "none":
                node.fail("list the base model among the sources, with its layer_range")
            start, stop = next(iter(ranges))
            base = listed[0] if listed else replace(base, start=start, stop=stop)
            if method.base != "none":
                sources = others
            elif method.name in _BASE_IS_FIRST:
                sources, base = [base, *others], None
            elif not listed and not sliced:
                base.node.fail(
                    f"{method.name} has no base: list this model among the models, with its "
                    "parameters, or leave base_model out"
                )
            else:
                base = None
        found = Slice(tuple(sources), base, parameters, node)
        try:
            resolve(method, len(found.inputs), found.base is not None, {})
        except ValueError as error:
            node.fail(f"{error}{'; set base_model' if 'needs a base' in str(error) else ''}")
        return found


def _layer_range(node: YamlValue) -> tuple[int, int]:
    ends = node.items("layer_range")
    if len(ends) != 2:
        node.fail("layer_range: expected [first, one past the last]")
    start, stop = (e.integer("layer_range") for e in ends)
    if not 0 <= start < stop:
        node.fail(f"layer_range: [{start}, {stop}] holds no layers")
    return start, stop


def _dtype(node: YamlValue, what: str) -> str:
    name = node.text(what).removeprefix("torch.")
    if name not in DTYPES:
        node.fail(f"{what}: must be one of {', '.join(DTYPES)}, got {name!r}")
    return name


def _tokenizer(
    reader: _Reader, keys: Mapping[str, YamlValue], base: SliceSource | None
) -> Path | str | None:
    if "tokenizer" in keys and "tokenizer_source" in keys:
        keys["tokenizer"].fail("give tokenizer or tokenizer_source, not both")
    node = keys.get("tokenizer_source")
    if "tokenizer" in keys:
        inner = keys["tokenizer"].mapping("tokenizer", ("source", "tokens", "pad_to_multiple_of"))
        for key in ("tokens", "pad_to_multiple_of"):
            if key in inner:
                inner[key].fail(f"{key}: not supported; tokens are aligned by their text")
        node = inner.get("source")
    if node is None or node.value is None:
        return None
    match node.text("tokenizer source"):
        case "union":
            return "union"
        case "base":
            if base is None:
                node.fail("tokenizer source base: there is no base_model")
            return base.path
        case _:
            return reader.model(node, "tokenizer source").path
