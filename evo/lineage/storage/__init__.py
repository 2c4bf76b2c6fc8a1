"""Files of a lineage: commits and their Parquet files, the journal, and the rows that both hold."""
