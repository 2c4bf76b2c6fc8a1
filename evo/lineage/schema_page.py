"""The schema as a page of the documentation, generated from the schema object."""

from collections.abc import Iterator

import pyarrow as pa

from evo.lineage.schema import SCHEMA_VERSION, SCHEMAS, TABLES


def schema_markdown() -> str:
    """The tables of a lineage in Markdown: every column's type, whether it may be null, what it means."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Schema of the lineage"
    yield ""
    yield (
        f"Version {SCHEMA_VERSION}; every file has it as `evo.schema` in its metadata. The rows of a table "
        "are in `RUN_DIR/lineage/TABLE/*.parquet`: one file for each finished generation, and "
        "`final.parquet` for the evaluations after the search. A file counts once a commit in "
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
    yield ""


def _type(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)
