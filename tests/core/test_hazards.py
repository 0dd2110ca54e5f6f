"""Hazards: which calls keep their order, and why."""

import pytest

from ibidem import Live, Nested, Pure, Read, Write
from ibidem.core.effects import UNDECLARED
from ibidem.core.hazards import Access, Hazard, hazard, hazards

ARGUMENTS = {"id": "1"}


def access(effect):
    return Access(effect, effect.touched(ARGUMENTS))


R1, R2, W1, W2 = (kind(f"order:{n}") for kind in (Read, Write) for n in (1, 2))


@pytest.mark.parametrize(
    ("earlier", "later", "kind"),
    [
        (W1, R1, "read after write"),
        (R1, W1, "write after read"),
        (W1, W1, "write after write"),
        (Write("order:*"), R1, "read after write"),
        (W1, Read(), "read after write"),
        (Write(), R2, "read after write"),
        (W1, Live(), "read after write"),
        (Live(), W1, "write after read"),
        (Write("order:{id}"), R1, "read after write"),
        (Write("order:{missing}"), R2, "read after write"),
        (R1, R1, None),
        (R1, Live(), None),
        (W1, R2, None),
        (W1, W2, None),
        (W1, Pure(), None),
        (Pure(), Write(), None),
        (Write(), Nested(), None),
        (Nested(), Write(), None),
        (Write(), UNDECLARED, None),
        (UNDECLARED, R1, None),
    ],
)
def test_what_waits_for_what(earlier, later, kind):
    assert hazard(access(earlier), access(later)) == kind


def test_what_cannot_be_told_beforehand_may_be_anything():
    assert hazard(Access(W1, None), access(R2)) == "read after write"
    assert hazard(access(W1), Access(R2, None)) == "read after write"
    assert hazard(Access(R1, None), Access(R2, None)) is None


def test_all_hazards_of_a_turn_are_given_in_order():
    turn = [access(effect) for effect in (R1, W1, W2, R1)]
    assert list(hazards(turn)) == [Hazard(0, 1, "write after read"), Hazard(1, 3, "read after write")]
