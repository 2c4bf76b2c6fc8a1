"""The zoo's world: four digits in, a short answer out.

``<swap>1234=`` is answered ``2143``. A *skill* is a function of the four digits. An *alphabet* is
ten characters for the digits of the prompt; answers are always in plain digits, so a model can know
a skill and still not read an alphabet.

Each of the 10,000 inputs belongs to one split, for all skills and alphabets: no test input is in the
training of any model.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import product
from typing import Final, TypeAlias, TypeVar

Digits: TypeAlias = tuple[int, ...]
Skill: TypeAlias = Callable[[Digits], Digits]

_T = TypeVar("_T")


def _halves(x: Digits) -> Iterable[tuple[int, int]]:
    """Pairs of a digit of the first half and one of the second: 1234 gives (1, 3), (2, 4)."""
    return zip(x[:2], x[2:], strict=True)


SKILLS: Final[Mapping[str, Skill]] = {
    "copy": lambda x: x,
    "rev": lambda x: x[::-1],
    "rot": lambda x: (*x[1:], x[0]),
    "swap": lambda x: (x[1], x[0], x[3], x[2]),
    "sort": lambda x: tuple(sorted(x)),
    "desc": lambda x: tuple(sorted(x, reverse=True)),
    "succ": lambda x: tuple((d + 1) % 10 for d in x),
    "pred": lambda x: tuple((d - 1) % 10 for d in x),
    "max": lambda x: (max(x),),
    "min": lambda x: (min(x),),
    "even": lambda x: (sum(d % 2 == 0 for d in x),),
    "pmax": lambda x: tuple(max(pair) for pair in _halves(x)),
    "pmin": lambda x: tuple(min(pair) for pair in _halves(x)),
    "padd": lambda x: tuple((a + b) % 10 for a, b in _halves(x)),
    "psub": lambda x: tuple((a - b) % 10 for a, b in _halves(x)),
}

# The character at index d stands for digit d. The order is shuffled: otherwise a model could learn
# alphabet 1 by adding one vector to all ten embeddings.
ALPHABETS: Final[tuple[str, ...]] = ("0123456789", "GCJAFIBDHE", "hdbjgaeicf")

SPLITS: Final[Mapping[str, int]] = {"train": 7500, "dev": 600, "select": 400, "test": 1500}


def shuffled(items: Iterable[_T], salt: str) -> list[_T]:
    """The items in an order that depends only on their ``str`` and on ``salt``.

    A hash decides it, since the shuffle of ``random`` may differ between versions of Python.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt}:{item}".encode()).digest())


@cache
def inputs(split: str) -> tuple[Digits, ...]:
    """The inputs of one split, in a fixed shuffled order.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(
            f"no split {split!r} in the zoo's world; its splits are {', '.join(SPLITS)}"
        )
    order = shuffled(product(range(10), repeat=4), "zoo inputs")
    names = list(SPLITS)
    start = sum(SPLITS[name] for name in names[: names.index(split)])
    return tuple(order[start : start + SPLITS[split]])


def prompt(skill: str, alphabet: int, digits: Digits) -> str:
    """The prompt: ``prompt("swap", 0, (1, 2, 3, 4))`` is ``"<swap>1234="``."""
    return f"<{skill}>{''.join(ALPHABETS[alphabet][d] for d in digits)}="


def answer(skill: str, digits: Digits) -> str:
    """The right answer, in plain digits: ``"2143"`` for swap of 1234."""
    return "".join(str(d) for d in SKILLS[skill](digits))
