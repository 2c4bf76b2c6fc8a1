"""Python objects named in a config as ``package.module:name``, and the names of objects given in code."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
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
    ``thing`` says it is of. Otherwise the name holds a digest of the source text, so that equal source has
    the same name in every process, and the object is kept for `load_object` in this one.

    Raises:
        FunctionNameError: no module holds it, and its source text can't be read.
    """
    module = module or getattr(thing, "__module__", "")
    holder = sys.modules.get(module)
    names = [getattr(thing, "__qualname__", "")]
    names += (
        [n for n, value in vars(holder or object()).items() if value is thing] if holder else []
    )
    for name in filter(None, names):
        try:
            if load_object(f"{module}:{name}") is thing:
                return f"{module}:{name}"
        except FunctionNameError:
            continue
    label = getattr(thing, "__name__", "") or getattr(thing, "name", type(thing).__name__)
    name = f"{UNNAMED}:{label}@{source_digest(thing)[:16]}"
    _UNNAMED_OBJECTS[name] = thing
    return name


def source_digest(thing: Any) -> str:
    """SHA-256 of the source text of a function or class; of any other object, of its class and attributes.

    Values that a closure holds, and what the function calls, are not part of it.

    Raises:
        FunctionNameError: there is no source text, as for code typed into ``python`` or built in.
    """
    return hashlib.sha256(_source_text(thing).encode()).hexdigest()


def _source_text(thing: Any) -> str:
    if inspect.isroutine(thing) or inspect.isclass(thing):
        try:
            return inspect.getsource(thing)
        except (OSError, TypeError):
            raise FunctionNameError(
                f"the source text of {thing!r} can't be read, so a run can't record which function it "
                "used. Define it at the top level of a module, and give 'package.module:name'."
            ) from None
    slots = [n for kind in type(thing).__mro__ for n in getattr(kind, "__slots__", ())]
    values = {
        n: getattr(thing, n) for n in (*slots, *getattr(thing, "__dict__", ())) if hasattr(thing, n)
    }
    texts = [f"{n}={_source_text(v) if callable(v) else v!r}" for n, v in sorted(values.items())]
    return f"{type(thing).__qualname__}({', '.join(texts)})"
