"""Effects: values that say what a call does, and refuse what makes no sense."""

import math
from datetime import timedelta

import pytest

from ibidem import Live, Nested, Pure, Read, Write
from ibidem.core.durations import seconds
from ibidem.core.effects import MARK, READ_TTL, UNDECLARED, Effect
from ibidem.core.resources import EVERYTHING, Resource


def test_r20_only_what_is_declared_so_is_remembered_or_merged():
    table = {
        each: (each.remembered, each.merge, each.changes)
        for each in (Pure(), Read(), Live(), Write(), Nested(), UNDECLARED)
    }
    assert [*table.values()] == [
        (True, True, False), (True, True, False), (False, False, False), (False, False, True), (False, False, False), (False, False, True),
    ]  # fmt: skip
    assert Live(merge=True).merge and not Live(merge=True).remembered


@pytest.mark.parametrize(
    ("given", "means"),
    [(600, 600.0), (0.5, 0.5), ("10m", 600.0), ("2h", 7200.0), ("7d", 604800.0), ("1w", 604800.0), ("250ms", 0.25), (" 30 s ", 30.0),
     ("1.5h", 5400.0), (timedelta(minutes=10), 600.0), (None, None)],
)  # fmt: skip
def test_a_time_is_read_in_each_of_its_forms(given, means):
    assert seconds(given) == means == Read(ttl=given).ttl


@pytest.mark.parametrize(
    "given",
    [
        0,
        -1,
        "0s",
        "-5m",
        math.nan,
        math.inf,
        "10",
        "ten minutes",
        "10 M",
        "",
        "m",
        True,
        False,
        [600],
        timedelta(0),
        timedelta(-1),
        "1e3s",
        b"10m",
    ],
)
def test_a_time_that_makes_no_sense_is_refused_and_told_how(given):
    for make in (Read, Pure):
        with pytest.raises(
            ValueError, match="give seconds, a text such as '30s', '10m', '2h' or '7d', a timedelta, or None"
        ):
            make(ttl=given)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Read(tll=5), r"Read has no option 'tll': did you mean ttl="),
        (lambda: Pure(also=1), r"Pure has no option 'also': it takes ttl, scope, identity"),
        (lambda: Write(ttl=5), r"Write has no option 'ttl': it takes also"),
        (lambda: Live(ttl=5), r"Live has no option 'ttl': it takes merge"),
        (lambda: Nested(ttl=5), r"Nested has no option 'ttl': it takes timeout"),
    ],
)
def test_an_unknown_option_is_refused_and_told_the_likely_one(make, says):
    with pytest.raises(TypeError, match=says):
        make()


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="it is one of conversation, user, shared"):
        Read(scope="everyone")


@pytest.mark.parametrize("wrong", [5, None, "", "a::b", ["a"]])
def test_a_resource_that_is_none_is_refused(wrong):
    for make in (Read, Write):
        with pytest.raises(ValueError, match="resource"):
            make(wrong)


def test_effects_are_values():
    assert Read("a:{x}", ttl="5m") == Read("a:{x}", ttl=300) == Read("a:{x}")
    assert len({Read("a"), Read("a"), Read("b"), Write("a"), Pure(), Read(ttl=None), Read(scope="user")}) == 6
    assert Read("a:{x}", scope="user", ttl=None) != Read("a:{x}", ttl=None)
    assert repr(Read("a:{x}", scope="user", ttl="1m")) == "Read('a:{x}', ttl=60.0, scope='user')"
    assert repr(Write()) == "Write()" and repr(Live(merge=True)) == "Live(merge=True)"
    assert Read().ttl == READ_TTL and Pure().ttl is None


def test_a_spelled_scope_is_told_from_the_default():
    assert not Read().scope_spelled and Read(scope="conversation").scope_spelled


def test_an_effect_is_a_decorator_that_returns_the_very_thing():
    def tool(): ...

    assert Read("a")(tool) is tool and getattr(tool, MARK) == Read("a")


class Cannot:
    __slots__ = ()

    def __call__(self): ...


@pytest.mark.parametrize("wrong", [5, "tool", None, int, Effect])
def test_what_is_no_tool_cannot_be_decorated(wrong):
    with pytest.raises(TypeError, match="declares a function or a tool"):
        Read()(wrong)


@pytest.mark.parametrize("wrong", [len, Cannot()])
def test_what_cannot_carry_an_effect_is_declared_by_name(wrong):
    with pytest.raises(TypeError, match=r"declare it by name, Guard\(effects="):
        Read()(wrong)


def test_what_a_call_touches():
    assert Read().touched({}) == Write().touched({}) == Live().touched({}) == (EVERYTHING,)
    assert Read("a:{x}", "b").touched({"x": 1}) == (Resource(("a", "1")), Resource(("b",)))
    assert Write("a", lambda args: [("b", args["x"])]).touched({"x": "1"}) == (Resource(("a",)), Resource(("b", "1")))
    assert Write(lambda args: args["missing"]).touched({}) is None
    assert Write(also=lambda args, result: []).touched({}) == (), "what it touches, only its result tells"
    assert Read("a:{x}:{y}", "{z}").fields == {"x", "y", "z"}
