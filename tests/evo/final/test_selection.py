"""The choice of the winner, as a pure function of scores."""

import math

from evo.algorithms import Candidate, Scored
from evo.final.selection import SelectionPolicy
from operators.recipe import Founder


def scored(**fitness):
    return [Scored(Candidate(Founder(n, "0"), "founder"), f) for n, f in fitness.items()]


def names(individuals):
    return "".join(s.candidate.recipe.name for s in individuals)


def test_the_best_on_dev_are_finalists_and_the_best_on_select_wins():
    policy = SelectionPolicy(3)
    shortlist = policy.shortlist(scored(a=0.1, b=0.4, c=0.3, d=0.2))
    assert names(shortlist) == "bcd"
    assert names(policy.order(shortlist, [0.5, 0.6, 0.7])) == "dcb"


def test_ties_on_dev_go_to_the_earlier_and_ties_on_select_to_the_better_on_dev():
    policy = SelectionPolicy(3)
    shortlist = policy.shortlist(scored(a=0.2, b=0.2, c=0.5, d=0.2))
    assert names(shortlist) == "cab"
    assert names(policy.order(shortlist, [0.1, 0.3, 0.3])) == "abc"


def test_a_failed_individual_is_no_finalist_and_a_failed_finalist_never_wins():
    policy = SelectionPolicy(2)
    shortlist = policy.shortlist(scored(a=math.nan, b=0.1, c=-math.inf, d=-0.3, e=-0.4))
    assert names(shortlist) == "bd"
    assert names(policy.order(shortlist, [math.nan, -5.0])) == "d"
    assert policy.order(shortlist, [math.nan, math.nan]) == []


def test_fewer_individuals_than_finalists_are_all_finalists():
    assert names(SelectionPolicy(9).shortlist(scored(a=0.0, b=1.0))) == "ba"
    assert SelectionPolicy(9).shortlist([]) == []
