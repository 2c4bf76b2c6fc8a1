"""Algorithms of the user's own: ``algorithm: {name: "package.module:Class", ...}``.

The settings are the keyword arguments of the class's constructor, whose first argument is the Start:

    class Climber:
        def __init__(self, start: Start, *, step: float = 0.3, children: int = 8) -> None: ...

Names and types are checked against the constructor's annotations, as those of our own settings are.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from evo.algorithms.protocol import Algorithm, Start
from evo.algorithms.spec import AlgorithmSettings, AlgorithmSpec, Traits
from evo.errors import EvoError
from fitness.functions import load_function

_MEMBERS = ("ask", "tell", "generation", "population")


class OwnSettings(AlgorithmSettings):
    """The name of a class, and its keyword arguments as they were given.

    They are checked with the config, unless the context's ``check_files`` is false: reading a finished
    run must not need the user's code.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @field_validator("name")
    @classmethod
    def _is_there(cls, value: str, info: ValidationInfo) -> str:
        if _is_checked(info):
            known_arguments(value)
        return value

    @model_validator(mode="after")
    def _fits_the_class(self, info: ValidationInfo) -> "OwnSettings":
        if _is_checked(info):
            _arguments(self)
        return self


def _is_checked(info: ValidationInfo) -> bool:
    return bool((info.context or {}).get("check_files", True))


def known_arguments(name: str) -> tuple[str, ...]:
    """The settings that the class called ``name`` takes.

    Raises:
        EvoError: there is no such class, or its constructor takes no Start.
    """
    return tuple(_model_of(name, load_function(name)).model_fields)


def _new(settings: OwnSettings, start: Start) -> Algorithm:
    made: Any = load_function(settings.name)(start, **_arguments(settings))
    missing = [member for member in _MEMBERS if not hasattr(made, member)]
    if missing:
        raise EvoError(
            f"algorithm.name: {settings.name} has no {missing[0]!r}; an algorithm has "
            f"{', '.join(_MEMBERS)}"
        )
    return made  # type: ignore[no-any-return]


def _traits(settings: OwnSettings) -> Traits:
    """The ``traits`` attribute of the class, if it has one."""
    declared = getattr(load_function(settings.name), "traits", Traits())
    if not isinstance(declared, Traits):
        raise EvoError(f"algorithm.name: {settings.name}.traits must be an evo.algorithms.Traits")
    return replace(declared, code=(settings.name,))


def _arguments(settings: OwnSettings) -> dict[str, Any]:
    given: Mapping[str, Any] = settings.model_extra or {}
    checked = _model_of(settings.name, load_function(settings.name)).model_validate(dict(given))
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def _model_of(name: str, made: Callable[..., Any]) -> type[BaseModel]:
    parameters = list(inspect.signature(made).parameters.values())
    if not parameters:
        raise EvoError(f"{name!r} must take the Start as its first argument")
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters[1:]
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(name, __config__=config, **fields)


OWN = AlgorithmSpec(OwnSettings, _new, _traits)
