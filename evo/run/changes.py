"""Changes since the run started: what a run was made with, compared with what there is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evo.errors import EvoError
from evo.run_dir.manifest import RunManifest


@dataclass(frozen=True, slots=True)
class Changes:
    """One line for each change.

    Attributes:
        fatal: founders, examples and config: no run can go on with others.
        code: code and versions, which the user may accept.
    """

    fatal: tuple[str, ...]
    code: tuple[str, ...]


def changes(then: RunManifest, now: RunManifest) -> Changes:
    """Return what has changed between two manifests of one run. The processor does not count."""
    since = "since the run started"
    base = (
        [] if then.scores.base == now.scores.base else [f"base: its tensors have changed {since}"]
    )
    fatal = [
        *base,
        *_differing(
            then.search.founders,
            now.search.founders,
            f"founder {{}}: its tensors have changed {since}",
        ),
        *_differing(
            then.scores.base_files, now.scores.base_files, f"base: {{}} has changed {since}"
        ),
        *_differing(
            then.scores.examples,
            now.scores.examples,
            f"task {{}}: its examples have changed {since}",
        ),
        *_differing(
            {**then.scores.settings, **then.search.settings},
            {**now.scores.settings, **now.search.settings},
            f"config.json, key {{}}: has changed {since}",
        ),
    ]
    code = []
    for was, is_ in ((then.scores, now.scores), (then.search, now.search)):
        code += [
            *_differing(was.user_code, is_.user_code, f"your module {{}} has changed {since}"),
            *_differing(was.code, is_.code, f"evo-models: code in {{}} has changed {since}"),
        ]
    was_version = {**then.scores.versions, **then.search.versions}
    is_version = {**now.scores.versions, **now.search.versions}
    code += [
        f"{name} was {was_version.get(name, 'absent')} and is {is_version[name]}"
        for name in sorted(is_version)
        if was_version.get(name) != is_version[name]
    ]
    return Changes(tuple(fatal), tuple(code))


def changed_keys(then: RunManifest, now: RunManifest) -> list[str]:
    """Return what differs between two configs, their founders and their examples, by the config's keys."""
    pairs = (
        ("{}", {"base": then.scores.base}, {"base": now.scores.base}),
        ("founders.{}", then.search.founders, now.search.founders),
        ("{}", then.scores.examples, now.scores.examples),
        ("{}", then.scores.settings, now.scores.settings),
        ("{}", then.search.settings, now.search.settings),
    )
    return sorted(name for text, was, is_ in pairs for name in _differing(was, is_, text))


def check_changes(
    run_dir: Path, then: RunManifest, now: RunManifest, *, accept_code: bool
) -> tuple[str, ...]:
    """Refuse to resume a run after a change; returns the changes of code that were accepted.

    Raises:
        EvoError: names each founder, task, key, module or version that has changed.
    """
    found = changes(then, now)
    if found.fatal:
        raise EvoError(
            f"{run_dir}: the run can't be resumed:\n"
            + "\n".join(f"- {c}" for c in found.fatal)
            + "\nRestore what was there, or start a new run"
        )
    if found.code and not accept_code:
        raise EvoError(
            f"{run_dir}: code or versions have changed since the run started:\n"
            + "\n".join(f"- {c}" for c in found.code)
            + "\nRestore what was there, or accept the changes with --accept-drift: recorded scores stay, "
            "new ones may differ in the last digits"
        )
    return found.code


def _differing(then: Mapping[str, str], now: Mapping[str, str], text: str) -> list[str]:
    names = sorted(then.keys() | now.keys())
    return [text.format(name) for name in names if then.get(name) != now.get(name)]
