"""Recipes: immutable expressions over founders that say how to make one model. No weights.

`expressions` the kinds of recipe, `coefficients` numbers per layer group and tensor filter, `canonical` recipes as JSON text.
"""

from operators.recipe.expressions import (
    Founder,
    Linear,
    Merge,
    Noise,
    ParameterValue,
    Recipe,
    Route,
    Step,
    Terms,
    as_node,
    collect,
    describe,
    linear,
    parts,
    walk,
)

__all__ = [
    "Founder",
    "Linear",
    "Merge",
    "Noise",
    "ParameterValue",
    "Recipe",
    "Route",
    "Step",
    "Terms",
    "as_node",
    "collect",
    "describe",
    "linear",
    "parts",
    "walk",
]
