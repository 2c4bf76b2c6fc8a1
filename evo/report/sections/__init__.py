"""One module for each section of the report: from the data of a run to plain, JSON-able values."""
