"""A zoo that is built in seconds."""

import dataclasses

from evo.zoo.plan import ZooPlan, zoo_plan


def tiny() -> ZooPlan:
    """Three steps and two founders; the models know nothing, all the rest is as in the real zoo."""
    plan = zoo_plan(base_steps=3, skill_steps=2, alphabet_steps=2)
    return dataclasses.replace(plan, founders=plan.founders[-3:-1], figure_rows=20)
