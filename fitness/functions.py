"""Names of Python objects in a config, ``package.module:name``, and names for objects given in code."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import partial
from types import CodeType
from typing import Any, Final

from operators.errors import EvoError

UNNAMED: Final = "<object>"
"""The module part of the names of objects that no module holds, such as lambdas and nested functions."""

_UNNAMED_OBJECTS: Final[dict[str, Any]] = {}


class FunctionNameError(EvoError):
    """A ``package.module:name`` that can't be loaded; the message says which part is wrong."""


def load_object(name: str) -> Any:
    """The object that ``name`` ("package.module:name") stands for.

    ``__main__:name`` is an object of the running program or notebook.

    Raises:
        FunctionNameError: no colon, no such module, or no such name in it.
        ImportError: the module exists and itself fails to import something.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise FunctionNameError(
            f"{name!r} is not the name of a Python object. Write 'package.module:name', "
            "for example 'my_project.scoring:rhymes'."
        )
    if module_name == UNNAMED:
        if name not in _UNNAMED_OBJECTS:
            raise FunctionNameError(
                f"{name!r} was given as an object in code, and no module holds it, so another process "
                "can't load it. Move it to the top level of a module and give its name, "
                "'package.module:name'; or create the object in this process first, with the same source."
            )
        return _UNNAMED_OBJECTS[name]
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (module_name + ".").startswith(missing + "."):
            raise FunctionNameError(
                f"{name!r}: no module {missing!r}. It must be importable where the models run: "
                "install its package there, or put its folder on PYTHONPATH."
            ) from None
        raise
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            if module_name == "__main__":
                hint += (
                    " '__main__' is the program or notebook that started the run: resume the run from "
                    "there, or move the object to a module and give 'package.module:name'."
                )
            raise FunctionNameError(f"{name!r}: {module_name!r} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    return found


def load_function(name: str) -> Callable[..., Any]:
    """The function that ``name`` ("package.module:function") stands for.

    Raises:
        FunctionNameError: as `load_object`, or the object is not callable.
        ImportError: the module exists and itself fails to import something.
    """
    found = load_object(name)
    if not callable(found):
        raise FunctionNameError(f"{name!r} is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return]


def name_of(thing: Any, *, module: str = "") -> str:
    """A name under which this process loads ``thing`` with `load_object`.

    That is "package.module:name" where a module has it at its top level: ``module``, or the one that
    ``thing`` says it is of. Otherwise the name contains `source_digest`, so that equal source has the same
    name in every process, and the object is kept for `load_object` in this process.
    """
    module = module or getattr(thing, "__module__", "")
    top_level = vars(sys.modules[module]) if module in sys.modules else {}
    for name, value in {getattr(thing, "__qualname__", ""): None, **top_level}.items():
        if (value is thing or value is None) and _loads(f"{module}:{name}", thing):
            return f"{module}:{name}"
    label = getattr(thing, "__name__", "") or getattr(thing, "name", type(thing).__name__)
    name = f"{UNNAMED}:{label}@{source_digest(thing)[:16]}"
    _UNNAMED_OBJECTS[name] = thing
    return name


def _loads(name: str, thing: Any) -> bool:
    try:
        return load_object(name) is thing
    except FunctionNameError:
        return False


def is_importable(name: str) -> bool:
    """Whether other processes can load the object ``name``, if they find its module."""
    return name.partition(":")[0] not in ("__main__", UNNAMED)


def source_digest(thing: Any) -> str:
    """SHA-256 of a function or class: its source text, or its bytecode where the text can't be read.

    Numbers and strings that a function has as defaults or from its closure are part of it; what it calls is
    not. Of any other object: its class's name and its attributes.
    """
    return hashlib.sha256(_text(thing).encode()).hexdigest()


def _text(thing: Any) -> str:
    """A text that is equal in every process for an equal ``thing``: no address, no order of a set."""
    if inspect.isroutine(thing) or inspect.isclass(thing):
        return _source_text(thing)
    if isinstance(thing, set | frozenset):
        return f"set{sorted(map(_text, thing))}"
    if isinstance(thing, tuple | list):
        return f"{type(thing).__name__}{[_text(t) for t in thing]}"
    if isinstance(thing, CodeType):
        names = (*thing.co_names, *thing.co_varnames, *thing.co_freevars)
        return f"code({thing.co_code.hex()}, {names}, {_text(thing.co_consts)})"
    has_text = "__repr__" in {n for kind in type(thing).__mro__[:-1] for n in vars(kind)}
    if has_text and not callable(thing) and not is_dataclass(thing):
        return repr(thing)
    slots = [n for kind in type(thing).__mro__ for n in getattr(kind, "__slots__", ())]
    fields = {*slots, *getattr(thing, "__dict__", ())}
    fields |= {"func", "args", "keywords"} if isinstance(thing, partial) else set()
    values = [f"{n}={_text(getattr(thing, n))}" for n in sorted(fields) if hasattr(thing, n)]
    return f"{type(thing).__qualname__}({', '.join(values)})"


def _source_text(thing: Any) -> str:
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):  # typed into ``python``, or built in
        text = ""
    code = getattr(thing, "__code__", None)
    if (
        not text or getattr(thing, "__name__", "") == "<lambda>"
    ):  # one line may have several lambdas
        text += _text(code) if code else repr(getattr(thing, "__qualname__", thing))
    cells = [c.cell_contents for c in getattr(thing, "__closure__", None) or () if _is_filled(c)]
    values = [*(getattr(thing, "__defaults__", None) or ()), *cells]
    return f"{text}{[v for v in values if isinstance(v, int | float | str | bytes)]}"


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
