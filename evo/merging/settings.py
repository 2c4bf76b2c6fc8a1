"""The parameters of a merge as YAML has them: values by filter and by layer, checked against MERGES."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from evo.merging.yaml_nodes import YamlValue
from operators.merge import MergeMethod, Number, Parameter, merge
from operators.recipe import Founder
from operators.recipe.coefficients import gradient

# What mergekit takes and has no effect, there or here.
_IGNORED = (("*", "int8_mask"), ("task_arithmetic", "density"), ("task_arithmetic", "rescale"))
_RESCALE = {True: "l1", False: "none"}


@dataclass(frozen=True, slots=True)
class Condition:
    """``values`` for tensors with ``filter`` in their name; several run evenly over the layers."""

    filter: str
    values: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One parameter as it was written: the first condition that fits a tensor decides."""

    conditions: tuple[Condition, ...]

    def at(self, tensor: str, layer: int | None, layers: int) -> Number | None:
        """The value for a tensor in layer ``layer`` of ``layers`` (None: in no layer); None if none fits.

        A list is interpolated: its first value at the first layer (and outside the layers), its last
        at the last. One layer takes the last, as mergekit does.
        """
        found = next((c for c in self.conditions if c.filter in tensor), None)
        if found is None:
            return None
        if layer is None or len(found.values) == 1:
            return found.values[0]
        if layers == 1:
            return found.values[-1]
        if any(isinstance(v, str) for v in found.values):
            return found.values[layer * (len(found.values) - 1) // (layers - 1)]
        value = gradient([float(v) for v in found.values], layers)[layer]
        # mergekit interpolates switches as 0 and 1, and everything but 0 is on.
        return value != 0.0 if isinstance(found.values[0], bool) else value


Settings: TypeAlias = Mapping[str, Setting]


def resolve(method: MergeMethod, inputs: int, based: bool, params: dict[str, Any]) -> Any:
    """``params`` of ``method`` checked and complete, as (name, value) pairs.

    Raises:
        ValueError: as :func:`operators.merge.merge` does.
    """
    names = [Founder(str(i), "") for i in range(inputs)]
    made: Any = merge(
        method.name, names, base=Founder("base", "") if based else None, params=params
    )
    return made.params


class SettingsReader:
    """Reads the parameters of one method; ``notes`` are of those without effect."""

    def __init__(self, method: MergeMethod) -> None:
        self.method = method
        self.notes: list[str] = []

    def read(self, node: YamlValue | None, *, one_model: bool) -> Settings:
        """The ``parameters`` at some place in the file; ``one_model``: they belong to one model."""
        if node is None or node.value is None:
            return {}
        made = {}
        for name, value in node.mapping("parameters").items():
            if self._is_ignored(name, value):
                self.notes.append(f"{name} has no effect on {self.method.name} and is ignored")
                continue
            parameter = self.method.parameter(name)
            if parameter is None:
                known = [p.name for p in self.method.parameters]
                value.unknown(name, known, f"to {self.method.name}")
            if one_model and not parameter.per_input:
                value.fail(
                    f"{name} is one for all models: move it to the parameters of the recipe or slice"
                )
            made[name] = self._setting(parameter, value)
            plain = len(made[name].conditions) == 1 and not made[name].conditions[0].filter
            if self.method.scope == "model" and (
                not plain or len(made[name].conditions[0].values) > 1
            ):
                value.fail(
                    f"{name}: {self.method.name} sees whole models, so it can't differ by layer or "
                    "tensor"
                )
        return made

    def _is_ignored(self, name: str, value: YamlValue) -> bool:
        if (self.method.name, name) in _IGNORED or ("*", name) in _IGNORED:
            return True
        return name == "rescale" and self.method.parameter(name) is None and value.value is False

    def _setting(self, parameter: Parameter, node: YamlValue) -> Setting:
        entries = node.value if isinstance(node.value, tuple) else (node,)
        if not entries:
            node.fail(f"{parameter.name}: an empty list")
        if not any(isinstance(e.value, Mapping) for e in entries):
            return Setting((Condition("", self._values(parameter, node)),))
        conditions = []
        for entry in entries:
            keys = entry.mapping(parameter.name, ("filter", "value"))
            if "value" not in keys:
                entry.fail(f"{parameter.name}: value is missing")
            has_filter = "filter" in keys and keys["filter"].value is not None
            pattern = keys["filter"].text("filter") if has_filter else ""
            values = self._values(parameter, keys["value"])
            conditions.append(Condition("" if pattern == "*" else pattern, values))
        return Setting(tuple(conditions))

    def _values(self, parameter: Parameter, node: YamlValue) -> tuple[Number, ...]:
        entries = node.value if isinstance(node.value, tuple) else (node,)
        values = []
        for entry in entries:
            value: Any = entry.value
            if isinstance(value, Mapping | tuple | None):
                entry.fail(f"{parameter.name}: expected a value or a list of values")
            if parameter.name == "rescale" and value in (0, 1):
                value = _RESCALE[bool(value)]
            elif isinstance(parameter.default, bool) and value in (0, 1):
                value = bool(value)
            elif isinstance(value, str) and not parameter.choices:
                try:
                    value = float(value)  # YAML reads 1e-5 as text
                except ValueError:
                    entry.fail(f"{parameter.name}: {value!r} is not a number")
            self._check(entry, {parameter.name: value})
            values.append(value)
        return tuple(values)

    def _check(self, node: YamlValue, params: dict[str, Any]) -> None:
        try:
            resolve(self.method, max(self.method.inputs[0], 1), self.method.base != "none", params)
        except ValueError as error:
            node.fail(str(error))
