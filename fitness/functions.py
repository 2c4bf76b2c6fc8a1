"""Functions named in a config as ``package.module:name``."""

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from operators.errors import EvoError


class FunctionNameError(EvoError):
    """A ``package.module:name`` that leads to no function; the message says which part is wrong."""


def load_function(name: str) -> Callable[..., Any]:
    """The function that ``name`` ("package.module:function") stands for.

    Raises:
        FunctionNameError: no colon, no such module, no such name in it, or not callable.
        ImportError: the module exists and itself fails to import something.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise FunctionNameError(
            f"{name!r} is not a function's name. Write 'package.module:function', "
            "for example 'my_project.scoring:rhymes'."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (module_name + ".").startswith(missing + "."):
            raise FunctionNameError(
                f"{name!r}: no module {missing!r}. It must be importable where the models run: "
                "install its package there, or put its folder on PYTHONPATH."
            ) from None
        raise
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise FunctionNameError(f"{name!r}: {module_name!r} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise FunctionNameError(f"{name!r} is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return]
