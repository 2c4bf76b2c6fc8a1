"""Which columns a condition on rows looks at."""

import pyarrow as pa
import pyarrow.compute as pc

from evo.errors import EvoError


def fields_of(where: pc.Expression, schema: pa.Schema) -> list[str]:
    """The columns of ``schema`` that ``where`` needs, found by leaving each out of an empty table.

    Raises:
        EvoError: it does not fit the schema.
    """
    empty = schema.empty_table()
    try:
        empty.filter(where)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise EvoError(
            f"{where}: no condition on these columns: {', '.join(schema.names)} ({error})"
        ) from error
    return [name for name in schema.names if not _holds(where, empty.drop_columns(name))]


def _holds(where: pc.Expression, rows: pa.Table) -> bool:
    try:
        rows.filter(where)
    except (pa.ArrowException, KeyError):
        return False
    return True
