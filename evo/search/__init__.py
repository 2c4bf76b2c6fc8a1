"""The search loop and its evaluator. Knows no files but the lineage writer."""
