"""The config format of mergekit-evolve, as far as it says what to search.

Source: mergekit 0.1.5, mergekit.evo.config and mergekit.evo.genome.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from evo.errors import EvoError

Word = Annotated[str, Field(min_length=1)]


class EvolveSection(BaseModel):
    """Unknown keys are let through, as mergekit does, and reported."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    def unknown(self) -> list[str]:
        return sorted(self.model_extra or ())


class EvolveModel(EvolveSection):
    """``path``, ``path@revision``, ``path+adapter``, or the same with keys."""

    path: Word
    revision: str | None = None
    adapter: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        if isinstance(value, dict) and "model" in value:
            inner, lora = value["model"], value.get("lora")
            named = inner if isinstance(inner, dict) else {"path": inner}
            return named | {"adapter": lora.get("path") if isinstance(lora, dict) else lora}
        if not isinstance(value, str):
            return value
        model, _, adapter = value.partition("+")
        path, _, revision = model.partition("@")
        return {"path": path, "revision": revision or None, "adapter": adapter or None}


class EvolveGenome(EvolveSection):
    models: Annotated[tuple[EvolveModel, ...], Field(min_length=2)]
    merge_method: Literal["linear", "task_arithmetic", "ties", "dare_ties", "slerp"]
    base_model: EvolveModel | None = None
    tokenizer_source: str | None = None
    layer_granularity: Annotated[int, Field(ge=0)] = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: tuple[Word, ...] | None = None
    smooth: bool = False

    @model_validator(mode="after")
    def _as_mergekit_demands(self) -> "EvolveGenome":
        if self.base_model is None and self.merge_method in (
            "task_arithmetic",
            "ties",
            "dare_ties",
        ):
            raise ValueError(f"base_model is required for {self.merge_method}")
        if self.merge_method == "slerp" and (self.smooth or self.filters):
            raise ValueError("slerp goes with neither smooth nor filters")
        return self


class EvolveTask(EvolveSection):
    name: Word
    weight: float = 1.0
    metric: str = "acc,none"

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class EvolveConfig(EvolveSection):
    genome: EvolveGenome
    tasks: tuple[EvolveTask, ...]
    limit: Annotated[int, Field(ge=1)] | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True

    @field_validator("tasks")
    @classmethod
    def _some(cls, value: tuple[EvolveTask, ...]) -> tuple[EvolveTask, ...]:
        if not any(task.weight for task in value):
            raise ValueError("no task with a weight other than 0")
        return value


def read_evolve(path: Path) -> EvolveConfig:
    """The mergekit-evolve config in file ``path``.

    Raises:
        EvoError: names the file and every key that is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EvoError(f"{path}: can't be read ({error})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EvoError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict) or "genome" not in data:
        hint = ""
        if isinstance(data, dict) and "merge_method" in data:
            hint = ". This is a recipe of mergekit-yaml, for: evo merge"
        raise EvoError(f"{path}: not a mergekit-evolve config, which has genome and tasks{hint}")
    try:
        return EvolveConfig.model_validate(data)
    except ValidationError as error:
        raise EvoError(f"{path}: {reasons(error)}") from error


def reasons(error: ValidationError) -> str:
    """What pydantic found, a key and a sentence each."""
    found = []
    for problem in error.errors():
        key = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        found.append(f"{key.lstrip('.')}: {message}")
    return "; ".join(found)
