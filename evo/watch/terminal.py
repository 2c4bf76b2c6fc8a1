"""The live view in a terminal, redrawn when the run directory changes; piped, one line for each generation."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evo.lineage.read.lineage import Lineage
from evo.watch.changes import LOOK_S, ChangeDetector, check_watchable
from evo.watch.snapshot import CurvePoint, ScoredIndividual, Snapshot, snapshot

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a curve, in characters
_STYLES = {"running": "bold green", "finished": "bold green", "stopped": "bold yellow"}


def follow(run_dir: Path, *, once: bool = False) -> None:
    """Show the status of a run until it ends; with ``once``, show it once.

    Raises:
        EvoError: ``run_dir`` holds no run.
    """
    check_watchable(run_dir)
    console = Console(highlight=False)
    if once:
        console.print(picture(snapshot(Lineage(run_dir)), run_dir))
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for now in snapshots(run_dir):
                live.update(picture(now, run_dir), refresh=True)
    else:
        _print_lines(run_dir, console)


def snapshots(run_dir: Path) -> Iterator[Snapshot]:
    """A snapshot after each change, until no process works on the run.

    Raises:
        EvoError: the run directory was removed.
    """
    changes, lineage = ChangeDetector(run_dir), Lineage(run_dir)
    while True:
        if changes.due():
            if changes.rewritten:
                lineage = Lineage(run_dir)
            began = monotonic()
            check_watchable(run_dir)
            now = snapshot(lineage)
            changes.rest(monotonic() - began)
            yield now
            if now.status.holder is None:
                return
        sleep(LOOK_S)


def picture(now: Snapshot, run_dir: Path) -> RenderableType:
    """A run on one screen."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{run_dir}  ", "bold"),
            (now.status.state, _STYLES.get(now.status.state, "")),
            f"  {now.status.algorithm}",
        )
    ]
    if now.status.problem:
        parts.append(Text(_plain(now.status.problem), style="red"))
    parts += _progress(now)
    if now.points:
        parts += [
            _curve("best", [p.best for p in now.points]),
            _curve("mean", [p.mean for p in now.points]),
            *([Text(f"best so far: {_member(now.best)}")] if now.best else []),
            Text(),
            _population(now),
        ]
    if now.operators:
        parts += [Text(), _operators(now)]
    if now.hosts:
        names = ", ".join(f"{host} {count}" for host, count in now.hosts)
        parts += [Text(), _short(_plain(f"evaluations by host: {names}"))]
    if now.events:
        parts.append(Text())
    for at, kind, detail in now.events:
        what = _plain(kind), "bold"
        parts.append(_short((f"{at:%H:%M:%S}  ", "dim"), what, "  ", _plain(detail)))
    if now.status.state == "stopped":
        parts.append(Text(f"resume it with: evo resume {run_dir}"))
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """A curve in one line of at most ``width`` characters; NaN is blank."""
    if len(values) > width:
        values = [values[(at + 1) * len(values) // width - 1] for at in range(width)]
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    steps = len(BARS) - 1
    return "".join(
        BARS[round((v - low) / span * steps) if span else 0] if math.isfinite(v) else " "
        for v in values
    )


def _progress(now: Snapshot) -> list[RenderableType]:
    last = now.points[-1] if now.points else None
    of = f" of {now.status.budget}" if now.status.budget else ""
    text = f"{now.status.evaluations}{of} evaluations"
    if now.status.pending:
        text += f" ({now.status.pending} since the last commit)"
    if last is not None:
        text += f", {len(now.points)} generations"
        if last.seconds > 0:
            text += f", {last.evaluations / last.seconds:.1f} per second"
        if last.failed:
            text += f", {last.failed} failed"
    parts: list[RenderableType] = [Text(text)]
    if now.status.budget:
        bar = ProgressBar(total=now.status.budget, completed=now.status.evaluations, width=WIDTH)
        parts.append(Padding(bar, 0))
    return parts


def _curve(name: str, values: Sequence[float]) -> Text:
    return Text.assemble(f"{name} {_number(values[-1])} ", (sparkline(values), "cyan"))


def _population(now: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("best of the population", "operator"):
        table.add_column(column)
    table.add_column("fitness", justify="right")
    for member in now.top:
        table.add_row(_plain(member.name), _plain(member.operator), _number(member.fitness))
    return table


def _operators(now: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("operator")
    for column in ("children", "survived", "beat its parents", "best"):
        table.add_column(column, justify="right")
    for row in now.operators[:6]:
        best = "–" if row["best"] is None else _number(row["best"])
        counts = (str(row[key]) for key in ("children", "survived", "improved"))
        table.add_row(_plain(row["operator"]), *counts, best)
    return table


def _print_lines(run_dir: Path, console: Console) -> None:
    """Output for a pipe: each generation and each change of state once."""
    printed = -1
    last: tuple[str, str | None] = ("", None)
    for now in snapshots(run_dir):
        for point in now.points:
            if point.generation > printed:
                printed = point.generation
                console.print(_line(point, now.status.budget), soft_wrap=True, markup=False)
        if last != (now.status.state, now.status.problem):
            last = (now.status.state, now.status.problem)
            text = (
                f"{now.status.state}: {_plain(now.status.problem)}"
                if now.status.problem
                else now.status.state
            )
            console.print(f"{run_dir}: {text}", soft_wrap=True, markup=False)


def _line(point: CurvePoint, budget: int | None) -> str:
    of = f"/{budget}" if budget else ""
    failed = f"  failed {point.failed}" if point.failed else ""
    return (
        f"generation {point.generation:3d}  best {_number(point.best)}  mean {_number(point.mean)}  "
        f"evaluations {point.evaluations}{of}{failed}"
    )


def _member(member: ScoredIndividual) -> str:
    return f"{_plain(member.name)}, {_plain(member.operator)}"


def _short(*parts: str | tuple[str, str]) -> Text:
    """One line, cut at the width of the terminal."""
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _plain(text: str) -> str:
    """The text without control characters, which errors and names may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
