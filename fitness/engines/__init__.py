"""Engines: what runs a model. `base` is the protocol; one module or folder for each engine."""
