"""Whatever is given: a result or one line of ours, soon, and nothing of it is executed.

``make hostile`` runs all cases; a few of each kind run with the ordinary tests.
"""

from functools import cache
from itertools import islice

import pytest
from hostile_grammar import KINDS, Case, drawn

PARTS = 4
A_FEW = 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_hostile_inputs(kind, hostile):
    strategy, _ = KINDS[kind]
    check(hostile, drawn(strategy(hostile.sound), A_FEW))


@pytest.mark.harness
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs(kind, part, hostile):
    check(hostile, islice(_all(kind, hostile.sound), part, None, PARTS))


def test_there_are_enough():
    assert sum(count for _, count in KINDS.values()) >= 2000


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("open('marker', 'w').close()", "code was executed"),
        ("__import__('time').sleep(99)", "hangs"),
        ("__import__('os').abort()", "died with status -6"),
        ("1 / 0", "ZeroDivisionError"),
        ("__import__('sys').stderr.write('holdfast: error: a\\nb\\n')", "an error with status 0"),
    ],
)
def test_what_must_not_happen_is_noticed(does, says, hostile):
    (fault,) = hostile.faults([Case(construct=does)], seconds=3.0)
    assert says in fault


@cache
def _all(kind, sound):
    strategy, count = KINDS[kind]
    return drawn(strategy(sound), count)


def check(hostile, cases):
    cases, before = list(cases), hostile.refused
    faults = hostile.faults(cases)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
    # What is harmless may pass, but most of it is not.
    assert hostile.refused - before >= len(cases) / 4
