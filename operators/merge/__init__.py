"""MERGES, the one table of merge methods, and :func:`merge`, which makes a checked recipe of one."""

import difflib
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Final

from operators.merge.bitdelta import BITDELTA
from operators.merge.consensus import MODEL_STOCK, RAM, RAMPLUS_TL, SCE
from operators.merge.exclusive import EXCLUSIVE
from operators.merge.linear import LINEAR, TASK_ARITHMETIC
from operators.merge.lora import EVO_LORA, EVO_LORA_PUBLISHED, LORA_CONCAT
from operators.merge.pcb import PCB
from operators.merge.single import ARCEE_FUSION, NEARSWAP, PASSTHROUGH
from operators.merge.slerp import SLERP
from operators.merge.sparsify import (
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DELLA,
    DELLA_LINEAR,
)
from operators.merge.spherical import KARCHER, MULTISLERP, NUSLERP
from operators.merge.table import MergeMethod, Number, Parameter
from operators.merge.ties import DARE_TIES, TIES
from operators.merge.widen import WIDEN
from operators.recipe import Merge, ParameterValue, Recipe
from operators.recipe.coefficients import Coefficient, Grouped, simplify

MERGES: Final[Mapping[str, MergeMethod]] = MappingProxyType(
    {
        m.name: m
        for m in (
            LINEAR,
            TASK_ARITHMETIC,
            SLERP,
            NUSLERP,
            MULTISLERP,
            KARCHER,
            TIES,
            DARE_LINEAR,
            DARE_TIES,
            DELLA,
            DELLA_LINEAR,
            BREADCRUMBS,
            BREADCRUMBS_TIES,
            MODEL_STOCK,
            SCE,
            NEARSWAP,
            ARCEE_FUSION,
            PASSTHROUGH,
            RAM,
            RAMPLUS_TL,
            PCB,
            WIDEN,
            EXCLUSIVE,
            EVO_LORA,
            EVO_LORA_PUBLISHED,
            LORA_CONCAT,
            BITDELTA,
        )
    }
)

__all__ = ["MERGES", "MergeMethod", "Number", "Parameter", "merge", "method_named"]


def method_named(name: str) -> MergeMethod:
    """The entry of MERGES.

    Raises:
        ValueError: there is none; the message lists them all and names the nearest.
    """
    if name in MERGES:
        return MERGES[name]
    near = difflib.get_close_matches(name, MERGES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown merge method {name!r}.{hint} Known: {', '.join(MERGES)}.")


def merge(
    method: str,
    inputs: Sequence[Recipe],
    *,
    base: Recipe | None = None,
    params: Mapping[str, ParameterValue] | None = None,
    seed: int = 0,
) -> Recipe:
    """A Merge with every parameter stated: defaults filled in, per-input values spread.

    Raises:
        ValueError: unknown method or parameter, an invalid value, a missing base, or a number of
            inputs that the method does not take.
    """
    entry = method_named(method)
    least, most = entry.inputs
    if len(inputs) < least or (most is not None and len(inputs) > most):
        wanted = f"{least}" if least == most else f"{least} or more"
        raise ValueError(f"{method}: takes {wanted} models, got {len(inputs)}")
    if entry.base == "required" and base is None:
        raise ValueError(f"{method}: needs a base model")
    given = dict(params or {})
    for name in given:
        if entry.parameter(name) is None:
            known = ", ".join(p.name for p in entry.parameters)
            raise ValueError(f"{method}: unknown parameter {name!r}. It takes: {known}.")
    checked = tuple(
        (p.name, _checked(entry, p, given.get(p.name, p.default), len(inputs)))
        for p in sorted(entry.parameters, key=lambda p: p.name)
    )
    return Merge(
        method,
        tuple(inputs),
        None if entry.base == "none" else base,
        checked,
        int(seed) if entry.seeded else 0,
    )


def _checked(
    entry: MergeMethod, parameter: Parameter, value: ParameterValue, inputs: int
) -> ParameterValue:
    where = f"{entry.name}: {parameter.name}"
    value = tuple(value) if isinstance(value, list) else value
    if parameter.choices:
        if value not in parameter.choices:
            raise ValueError(
                f"{where} must be one of {', '.join(parameter.choices)}, got {value!r}"
            )
        return value
    if isinstance(parameter.default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{where} must be true or false, got {value!r}")
        return value
    if entry.scope == "model" and any(
        isinstance(v, Grouped) for v in (value if isinstance(value, tuple) else (value,))
    ):
        raise ValueError(f"{where} can't differ by layer or tensor: {entry.name} sees whole models")
    if not parameter.per_input:
        if isinstance(value, tuple):
            raise ValueError(f"{where} takes one number, not one for each model")
        return _valid_number(where, parameter, value)
    each = value if isinstance(value, tuple) else (value,) * inputs
    if len(each) != inputs:
        raise ValueError(f"{where} has {len(each)} values for {inputs} models")
    return tuple(_valid_number(where, parameter, v) for v in each)


def _valid_number(where: str, parameter: Parameter, value: object) -> Coefficient:
    if isinstance(value, bool) or not isinstance(value, Grouped | Real):
        raise ValueError(f"{where} must be a number, got {value!r}")
    value = simplify(value if isinstance(value, Grouped) else float(value))
    numbers = [v for r in value.rules for v in r.values] if isinstance(value, Grouped) else [value]
    low, high = parameter.valid or (-math.inf, math.inf)
    for number in numbers:
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(f"{where} must be {_limits(low, high)}, got {number}")
        if parameter.integer and number != int(number):
            raise ValueError(f"{where} must be a whole number, got {number}")
    return value


def _limits(low: float, high: float) -> str:
    if math.isfinite(low) and math.isfinite(high):
        return f"in [{low}, {high}]"
    return f"finite and {low:g} or more" if math.isfinite(low) else "finite"
