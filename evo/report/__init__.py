"""The report of a run: what it says (:func:`evo.report.facts.facts`), and the page that shows it."""
