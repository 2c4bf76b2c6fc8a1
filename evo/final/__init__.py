"""The end of a run: finalists, winner, baselines, test scores."""
