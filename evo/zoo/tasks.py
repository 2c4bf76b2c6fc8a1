"""Tasks of the zoo's world as JSON Lines, as a run reads them.

A mix such as ``swap:1,pmax:1`` names skills and the alphabet of each prompt. A row is
``{"prompt": "<swap>GCJA=", "answer": "1032"}``; rows alternate between the mix's entries.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from evo.errors import EvoError
from evo.zoo import world

DEFAULT_SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {"dev": 200, "select": 200, "test": 1000}
)

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class SkillVariant:
    """A skill and the alphabet of its prompts. ``str()`` gives the form that `parse_mix` reads."""

    skill: str
    alphabet: int = 0

    def __str__(self) -> str:
        return f"{self.skill}:{self.alphabet}"


def parse_mix(text: str) -> tuple[SkillVariant, ...]:
    """Read ``"swap:1,pmax:1"``. Without ``:alphabet`` the prompts are in plain digits.

    Raises:
        EvoError: the mix is empty, repeats an entry, or names a skill or an alphabet that the
            world does not have.
    """
    mix = tuple(_parse_variant(part.strip(), text) for part in text.split(","))
    for variant in mix:
        if mix.count(variant) > 1:
            raise EvoError(f"mix {text!r} has {variant} more than once; name each entry once")
    return mix


def _parse_variant(part: str, text: str) -> SkillVariant:
    skill, colon, alphabet = part.partition(":")
    if not skill:
        raise EvoError(
            f"mix {text!r} has an empty entry; write skill:alphabet, with commas between, "
            "as in 'swap:1,pmax:1'"
        )
    if skill not in world.SKILLS:
        nearest = difflib.get_close_matches(skill, world.SKILLS, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise EvoError(
            f"mix {text!r}: no skill {skill!r}.{hint} The skills are {', '.join(world.SKILLS)}."
        )
    alphabets = {str(i): i for i in range(len(world.ALPHABETS))}
    if colon and alphabet not in alphabets:
        raise EvoError(
            f"mix {text!r}: no alphabet {alphabet!r} in {part!r}; the alphabets are "
            f"{', '.join(alphabets)}, where 0 is plain digits"
        )
    return SkillVariant(skill, alphabets[alphabet] if colon else 0)


def task_rows(
    mix: Sequence[SkillVariant], split: str, count: int, *, name: str, seed: int = 0
) -> list[dict[str, str]]:
    """``count`` rows of one split, without repeated inputs. The same arguments give the same rows.

    Raises:
        EvoError: the mix is empty, the split is unknown, or it has fewer than ``count`` inputs.
    """
    if not mix:
        raise EvoError(f"task {name!r} has an empty mix; give at least one skill")
    available = world.inputs(split)
    if not 1 <= count <= len(available):
        raise EvoError(
            f"task {name!r} asks for {count} examples in {split!r}; "
            f"the world has {len(available)} there, so choose 1 to {len(available)}"
        )
    salt = f"{seed}:{name}:{','.join(map(str, mix))}:{split}"
    chosen = world.shuffled(available, salt)[:count]
    return [
        {
            "prompt": world.prompt(variant.skill, variant.alphabet, digits),
            "answer": world.answer(variant.skill, digits),
        }
        for variant, digits in ((mix[i % len(mix)], digits) for i, digits in enumerate(chosen))
    ]


def write_task(
    directory: Path,
    mix: Sequence[SkillVariant],
    *,
    name: str,
    seed: int = 0,
    sizes: Mapping[str, int] = DEFAULT_SIZES,
) -> Mapping[str, Path]:
    """Write ``directory/<name>.<split>.jsonl`` for every split in ``sizes``; return the paths.

    Splits share no input. Nothing is written unless every split can be, and each file appears
    whole or not at all.

    Raises:
        EvoError: the name is not a plain file name, or see `task_rows`.
    """
    if not _NAME.fullmatch(name):
        raise EvoError(
            f"task name {name!r} becomes a file name: use letters, digits, '-' and '_' only, "
            "64 at most"
        )
    if not sizes:
        raise EvoError(f"task {name!r} has no splits; give sizes such as dev=200, test=1000")
    rows = {
        split: task_rows(mix, split, count, name=name, seed=seed) for split, count in sizes.items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = {split: directory / f"{name}.{split}.jsonl" for split in sizes}
    for split, path in paths.items():
        text = "".join(json.dumps(row) + "\n" for row in rows[split])
        write_whole(path, text)
    return paths


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all, even if the process is killed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
