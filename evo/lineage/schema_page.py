"""The schema as a page: made from the schema object, so that it is never out of date."""

from collections.abc import Iterator

import pyarrow as pa

from evo.lineage.schema import SCHEMA_VERSION, SCHEMAS, TABLES
from evo.lineage.versions import MISSING


def schema_markdown() -> str:
    """The tables of a lineage in Markdown: every column's type, whether it may be null, what it means."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Schema of the lineage"
    yield ""
    yield (
        f"Version {SCHEMA_VERSION}, which every file carries as `evo.schema` in its metadata. The rows of a "
        "table are in `RUN_DIR/lineage/TABLE/*.parquet`: one file for each finished generation, and "
        "`final.parquet` for what came after the search. A file counts once "
        "`RUN_DIR/lineage/commits/` names it."
    )
    for name, schema in SCHEMAS.items():
        yield from ("", f"## {name}", "", TABLES[name], "")
        yield "| Column | Type | Null | Meaning |"
        yield "|---|---|---|---|"
        for field in schema:
            null = "may be" if field.nullable else "never"
            meaning = field.metadata[b"doc"].decode().replace("|", "\\|")
            yield f"| `{field.name}` | {_type(field.type)} | {null} | {meaning} |"
    yield from ("", "## Older versions", "")
    for version, tables in MISSING.items():
        for name, columns in tables.items():
            names = ", ".join(f"`{c}`" for c in columns)
            yield f"- Version {version}: `{name}` has no {names}; they read as null, where nothing else is said."
    yield ""


def _type(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)
