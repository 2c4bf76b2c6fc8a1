"""What happened in a run, for a person: facts from the lineage, and a page that shows them."""
