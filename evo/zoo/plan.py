"""How the zoo's models are trained: one `Course` for the base and one for each founder.

The base sees the rare skills a little. Without them, the founders drift too far from each other for any
merge to work; with more, every merge works and a search has nothing to find.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Lesson:
    """A skill in an alphabet, and its share of the examples relative to the other lessons."""

    skill: str
    alphabet: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Course:
    """How one checkpoint is trained. The learning rate warms up linearly, then falls as a cosine.

    Attributes:
        steps, warmup: optimizer steps in all, and of those the ones that warm up.
        batch: examples a step; with ``replay``, half of them are from the base's lessons.
        peak_rate, final_rate: AdamW's learning rate after the warm-up and at the end.
        embedding_only: train the input embedding, freeze everything else; characters of a new
            alphabet start at the mean of the plain digits.
        threads: part of the course, since the last bit of a sum depends on it.
    """

    name: str
    lessons: tuple[Lesson, ...]
    steps: int
    batch: int
    peak_rate: float
    final_rate: float
    warmup: int
    replay: bool
    embedding_only: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ZooPlan:
    """The base's course and, in the order of the founders, theirs.

    Attributes:
        figure_rows: examples that each figure of the report is scored on, at most.
    """

    base: Course
    founders: tuple[Course, ...]
    figure_rows: int = 1000

    @property
    def courses(self) -> tuple[Course, ...]:
        return (self.base, *self.founders)


_CORE: Final = ("copy", "rot", "succ", "pred", "max", "min")
_RARE: Final[Mapping[str, float]] = {
    "rev": 0.08,
    "sort": 0.15,
    "desc": 0.15,
    "swap": 0.12,
    "even": 0.25,
    "pmax": 0.15,
    "pmin": 0.15,
}
_SKILL_FOUNDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "rev": ("rev",),
    "sort": ("sort",),
    "desc": ("desc",),
    "swap": ("swap",),
    "even": ("even",),
    "pmax": ("pmax",),
    "pmin": ("pmin",),
    "succpred": ("succ", "pred"),
}


def zoo_plan(
    *, base_steps: int = 600, skill_steps: int = 400, alphabet_steps: int = 300
) -> ZooPlan:
    """The demo's plan. With few steps the models learn nothing, which is enough for most tests."""
    base = Course(
        name="base",
        lessons=(
            *(Lesson(skill) for skill in _CORE),
            *(Lesson(skill, weight=weight) for skill, weight in _RARE.items()),
        ),
        steps=base_steps,
        batch=128,
        peak_rate=2e-3,
        final_rate=2e-4,
        warmup=50,
        replay=False,
    )
    skills = (
        Course(
            name=name,
            lessons=tuple(Lesson(skill) for skill in taught),
            steps=skill_steps,
            batch=64,
            peak_rate=3e-4,
            final_rate=0.0,
            warmup=20,
            replay=True,
        )
        for name, taught in _SKILL_FOUNDERS.items()
    )
    alphabets = (
        Course(
            name=f"alpha{alphabet}",
            lessons=tuple(Lesson(skill, alphabet) for skill in _CORE),
            steps=alphabet_steps,
            batch=64,
            peak_rate=3e-3,
            final_rate=0.0,
            warmup=20,
            replay=True,
            embedding_only=True,
        )
        for alphabet in (1, 2)
    )
    return ZooPlan(base=base, founders=(*skills, *alphabets))
