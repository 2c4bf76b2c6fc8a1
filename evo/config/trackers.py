"""What may be set of each tracker, under ``trackers:`` in a config."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorboardSettings(_Settings):
    """Its event files go to ``tensorboard`` in the run's folder. Nothing to set."""


class MlflowSettings(_Settings):
    """``uri`` is the tracking server's; by default MLflow's own (``MLFLOW_TRACKING_URI``)."""

    uri: str | None = None
    experiment: str = "evo"


class WandbSettings(_Settings):
    """Weights & Biases; with ``mode: offline`` for `wandb sync` later. The key is the environment's."""

    project: str = "evo"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class PrometheusSettings(_Settings):
    """Through Ray's own metrics: every node of the cluster serves them. Nothing to set."""


class TrackersConfig(_Settings):
    """Who else is told how a run goes. A name switches a tracker on: ``trackers: {tensorboard: {}}``.

    May change when a run goes on; what a new one missed is told to it then.
    """

    tensorboard: TensorboardSettings | None = None
    mlflow: MlflowSettings | None = None
    wandb: WandbSettings | None = None
    prometheus: PrometheusSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, value: Any) -> Any:
        # In YAML a name with nothing after it is null.
        if isinstance(value, dict):
            return {name: {} if given is None else given for name, given in value.items()}
        return value

    @model_serializer(mode="wrap")
    def _only_those_on(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: given for name, given in handler(self).items() if given is not None}
