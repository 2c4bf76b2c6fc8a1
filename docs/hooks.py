"""What the site has beyond the pages: tables made from the code, and the project's files that pages link to."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINKED = re.compile(r"\]\(\.\./([\w./-]+)\)")  # from docs/ to a file of the project


def on_files(files: Any, config: Any) -> Any:
    """The files that pages link to become files of the site, under the same path."""
    linked = {
        path for page in (ROOT / "docs").glob("*.md") for path in LINKED.findall(page.read_text())
    }
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables that a page asks for by a comment, as `<!-- table: schema -->`."""
    markdown = LINKED.sub(r"](\1)", markdown)
    return re.sub(r"<!-- table: (\w+) -->", lambda m: TABLES[m.group(1)](), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name things in Sphinx's way, as editors show them; here the name is enough."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code)", "", html)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in lines
    )


def schema() -> str:
    """The five tables of the lineage, from the schema object."""
    from evo.lineage.schema_page import schema_markdown

    return schema_markdown()


def merges() -> str:
    """MERGES: inputs, base, and the parameters with their defaults and the range that a search explores."""
    from operators.merge import MERGES

    def inputs(least: int, most: int | None) -> str:
        return str(least) if least == most else f"{least}–{most}" if most else f"{least} or more"

    def parameter(p: Any) -> str:
        searched = f" [{p.search[0]:g}, {p.search[1]:g}]" if p.search else ""
        return f"`{p.name}` {p.default}{searched}"

    return _table(
        ("method", "models", "base", "parameters: default [searched]", "source"),
        (
            (
                f"`{m.name}`",
                inputs(*m.inputs),
                m.base,
                "<br>".join(map(parameter, m.parameters)),
                m.source,
            )
            for m in MERGES.values()
        ),
    )


def algorithms() -> str:
    """ALGORITHMS: every setting and its default."""
    from evo.algorithms import ALGORITHMS, read_settings

    return _table(
        ("name", "settings and their defaults"),
        (
            (
                f"`{name}`",
                " ".join(f"`{n}: {_plain(v)}`" for n, v in read_settings(name) if n != "name"),
            )
            for name in ALGORITHMS
        ),
    )


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    name = getattr(value, "name", None)
    return str(
        name
        or ("null" if value is None else str(value).lower() if value in (True, False) else value)
    )


def metrics() -> str:
    """METRICS: the rows that each takes and the options that it reads."""
    from fitness.metrics import CALL, FUNCTION, METRICS

    return _table(
        ("metric", "a row", "better", "options"),
        (
            (
                f"`{m.name}`" if m not in (CALL, FUNCTION) else "`package.module:name`",
                f"`{m.row_format.sample}`" if m.row_format else "a string under `data`",
                "higher" if m.higher_is_better else "lower",
                ", ".join(f"`{o}`" for o in sorted(m.options)) or "–",
            )
            for m in METRICS.values()
        ),
    )


TABLES = {"schema": schema, "merges": merges, "algorithms": algorithms, "metrics": metrics}
