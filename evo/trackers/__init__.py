"""Trackers: TensorBoard, MLflow, Weights & Biases and Prometheus behind one protocol, in one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

from evo.config.trackers import TrackersConfig
from evo.errors import EvoError
from evo.trackers.mlflow import MlflowTracker
from evo.trackers.prometheus import PrometheusTracker
from evo.trackers.protocol import Callback, TrackedRun
from evo.trackers.tensorboard import TensorboardTracker
from evo.trackers.wandb import WandbTracker

__all__ = ["TRACKERS", "Callback", "TrackedRun", "TrackersConfig", "make_trackers"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a tracker is made of its settings, the package it needs, and the extra that brings that."""

    make: Callable[[Any], Callback]
    package: str
    extra: str


TRACKERS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "tensorboard": _Kind(TensorboardTracker, "tensorboard", "tensorboard"),
        "mlflow": _Kind(MlflowTracker, "mlflow", "mlflow"),
        "wandb": _Kind(WandbTracker, "wandb", "wandb"),
        "prometheus": _Kind(PrometheusTracker, "prometheus_client", "cluster"),
    }
)


def make_trackers(config: TrackersConfig, *, on_ray: bool) -> dict[str, Callback]:
    """The trackers that a config names, none of them started.

    Raises:
        EvoError: the package of one is not installed, or ``prometheus`` is asked for without Ray.
    """
    found = {}
    for name, kind in TRACKERS.items():
        settings = getattr(config, name)
        if settings is None:
            continue
        spec = find_spec(kind.package)
        if spec is None or spec.origin is None:  # no origin: a mere folder of that name
            raise EvoError(
                f"trackers.{name}: the package {kind.package} is not installed: "
                f"pip install 'evo-models[{kind.extra}]'"
            )
        if name == "prometheus" and not on_ray:
            raise EvoError(
                "trackers.prometheus: goes through Ray's own metrics, so it needs pool.kind: ray"
            )
        found[name] = kind.make(settings)
    return found
