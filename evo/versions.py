"""The versions of the packages that a result may depend on."""

import platform
from importlib.metadata import version

_PACKAGES = ("evo-models", "torch", "transformers", "ray", "numpy", "cmaes", "pyarrow")


def versions() -> dict[str, str]:
    """Return the installed version of each package by name, and of Python."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
