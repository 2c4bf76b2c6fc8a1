"""The live view in a terminal: drawn anew when the run's folder changes; piped, a line a generation."""

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
from evo.watch.changes import LOOK_S, Changes, check_watchable
from evo.watch.snapshot import Member, Point, Snapshot, snapshot

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a curve, in characters
_STYLES = {"running": "bold green", "finished": "bold green", "stopped": "bold yellow"}


def follow(run_dir: Path, *, once: bool = False) -> None:
    """Show how the run stands until it has ended, with ``once`` only as it is now.

    Raises:
        EvoError: there is no run.
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
    """How the run stands, after each change; the last one is when nobody is at work on it any more.

    Raises:
        EvoError: the run's folder is gone.
    """
    changes, lineage = Changes(run_dir), Lineage(run_dir)
    while True:
        if changes.due():
            if changes.rewritten:
                lineage = Lineage(run_dir)
            began = monotonic()
            check_watchable(run_dir)
            now = snapshot(lineage)
            changes.rest(monotonic() - began)
            yield now
            if now.holder is None:
                return
        sleep(LOOK_S)


def picture(now: Snapshot, run_dir: Path) -> RenderableType:
    """Everything about a run on one screen."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{run_dir}  ", "bold"), (now.state, _STYLES.get(now.state, "")), f"  {now.algorithm}"
        )
    ]
    if now.problem:
        parts.append(Text(_plain(now.problem), style="red"))
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
    if now.state == "stopped":
        parts.append(Text(f"go on with: evo resume {run_dir}"))
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """A curve in one line: of more values than ``width``, the last of each stretch; blank for NaN."""
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
    of = f" of {now.budget}" if now.budget else ""
    text = f"{now.evaluations}{of} evaluations"
    if now.pending:
        text += f" ({now.pending} since the last commit)"
    if last is not None:
        text += f", {len(now.points)} generations"
        if last.seconds > 0:
            text += f", {last.evaluations / last.seconds:.1f} a second"
        if last.failed:
            text += f", {last.failed} failed"
    parts: list[RenderableType] = [Text(text)]
    if now.budget:
        bar = ProgressBar(total=now.budget, completed=now.evaluations, width=WIDTH)
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
    for column in ("children", "survived", "better than both parents", "best"):
        table.add_column(column, justify="right")
    for row in now.operators[:6]:
        best = "–" if row["best"] is None else _number(row["best"])
        counts = (str(row[key]) for key in ("children", "survived", "improved"))
        table.add_row(_plain(row["operator"]), *counts, best)
    return table


def _print_lines(run_dir: Path, console: Console) -> None:
    """For a pipe: nothing is drawn twice."""
    printed = -1
    said: tuple[str, str | None] = ("", None)
    for now in snapshots(run_dir):
        for point in now.points:
            if point.generation > printed:
                printed = point.generation
                console.print(_line(point, now.budget), soft_wrap=True, markup=False)
        if said != (now.state, now.problem):
            said = (now.state, now.problem)
            text = f"{now.state}: {_plain(now.problem)}" if now.problem else now.state
            console.print(f"{run_dir}: {text}", soft_wrap=True, markup=False)


def _line(point: Point, budget: int | None) -> str:
    of = f"/{budget}" if budget else ""
    failed = f"  failed {point.failed}" if point.failed else ""
    return (
        f"generation {point.generation:3d}  best {_number(point.best)}  mean {_number(point.mean)}  "
        f"evaluations {point.evaluations}{of}{failed}"
    )


def _member(member: Member) -> str:
    return f"{_plain(member.name)}, {_plain(member.operator)}"


def _short(*parts: str | tuple[str, str]) -> Text:
    """In one line, cut where the terminal ends."""
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _plain(text: str) -> str:
    """Without what would steer a terminal: errors and names may hold anything."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
