"""Paths through the layers of a transformers model: its modules again, in another order.

A shell is a copy of the model's modules that shares every tensor with it. Step k is a copy of the
layer that it came from, so it keeps that layer's kind (sliding or full attention), but carries the
number k: the key-value cache is keyed by it, so a layer that comes twice has two caches.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fitness.engines.install import Installer
from operators.build.architectures import Architecture, architecture_of, path_config
from operators.build.paths import LayerPath


class PathModel:
    """A model of given layers, ready to take the weights of paths through just these."""

    def __init__(self, model: Any, layers: Sequence[int], device: str) -> None:
        """Raises ArchitectureError where the layout of ``model`` is not known."""
        self._architecture = architecture_of(model.config.to_dict())
        config = copy.deepcopy(model.config)
        for key, value in path_config(config.to_dict(), layers).items():
            setattr(config, key, value)
        # Tensors are shared and everything else is copied: modules hold hooks, numbers and configs.
        shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
        shared[id(model.config)] = config
        source = layer_list(model, self._architecture)
        steps = nn.ModuleList(
            _step(source[layer], number, dict(shared)) for number, layer in enumerate(layers)
        )
        shared[id(source)] = steps
        self.model = copy.deepcopy(model, shared)
        self._scales = [1.0] * len(layers)
        for number, step in enumerate(steps):
            step.register_forward_pre_hook(self._enter(number), with_kwargs=True)
        self._installer = Installer(self.model, prefix=self.model.base_model_prefix, device=device)

    def install(self, path: LayerPath) -> None:
        """Take the path's tensors and scales; nothing is copied.

        Raises:
            InstallError: the tensors do not fit the model.
        """
        self._installer.install(path.weights)
        self._scales[:] = path.scales

    def release(self) -> None:
        """Let go of the path's tensors: a shell that waits for its next path holds none."""
        self._installer.release()

    def _enter(self, number: int) -> Any:
        scales = self._scales

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            scale = scales[number]
            if scale == 1.0:
                return None
            hidden: Tensor
            if args:
                hidden = args[0]
                return (hidden * scale, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": kwargs["hidden_states"] * scale}

        return hook


def _step(layer: nn.Module, number: int, shared: dict[int, Any]) -> nn.Module:
    step = copy.deepcopy(layer, shared)
    for module in step.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = number  # type: ignore[assignment]
    return step


def layer_list(model: Any, architecture: Architecture) -> nn.ModuleList:
    """The layers of a transformers model."""
    name = architecture.layers.rstrip(".")
    found = model.get_submodule(name)
    if not isinstance(found, nn.ModuleList):
        raise TypeError(f"{name} is no list of layers")
    return found
