"""Declarations: which one wins, and what is refused."""

import pytest

from ibidem import Guard, Live, Nested, Pure, Read, Write, wrap
from ibidem.core.declarations import Declarations, decorated_effect
from ibidem.core.effects import UNDECLARED


def of(effects=None, reads=(), writes=(), live=(), default=None):
    return Declarations.of(effects, reads, writes, live, default)


LADDER = [
    ("effects", {"effects": {"get": Pure()}}, {}),
    ("effects['g*']", {"effects": {"g*": Read("g")}}, {}),
    ("effects['*t']", {"effects": {"x": Live(), "*t": Read("t")}}, {}),
    ("reads=['g*']", {"reads": ["x", "g*"]}, {}),
    ("decorator", {}, {"decorated": Read("d")}),
    ("MCP hint", {}, {"hinted": Read("h")}),
    ("default", {"default": Nested()}, {}),
    ("nothing", {}, {}),
]


@pytest.mark.parametrize("step", range(len(LADDER)))
def test_the_first_that_speaks_wins(step):
    declared, given = {"effects": {}}, {}
    for _, options, found in LADDER[step:]:
        effects = {**declared["effects"], **options.get("effects", {})}
        declared = {**declared, **{k: v for k, v in options.items() if k != "effects"}, "effects": effects}
        given.update(found)
    effect, origin = of(**declared).effect_of("get", **given)
    expected, options, found = LADDER[step]
    assert origin == expected
    if "effects" in options:
        assert effect == list(options["effects"].values())[-1]
    if expected == "nothing":
        assert effect is UNDECLARED


def test_globs_of_effects_speak_in_the_order_written():
    declared = of({"get_*": Read("first"), "get_o*": Read("second"), "get_other": Read("exact")})
    assert declared.effect_of("get_order")[0] == Read("first")
    assert declared.effect_of("get_other")[0] == Read("exact")


def test_lists_declare_their_effects():
    declared = of(reads=["get"], writes=["put"], live=["now"])
    assert [declared.effect_of(name)[0] for name in ("get", "put", "now")] == [Read(), Write(), Live()]
    assert declared.effect_of("PUT")[1] == "nothing", "names are told apart by case"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reads": ["a"], "writes": ["a"]}, r"'a' is declared in reads= and in writes=: keep it in one of them"),
        ({"reads": ["g*"], "live": ["x", "g*"]}, r"'g\*' is declared in reads= and in live="),
    ],
)
def test_a_name_in_two_lists_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Guard(**options)


def test_globs_that_meet_in_a_tool_are_refused_and_an_exact_name_settles_it():
    def get_and_set(): ...

    with pytest.raises(
        ValueError, match=r"tool 'get_and_set' is declared by reads=\['get_\*'\] and by writes=\['\*_set'\].*effects="
    ):
        wrap(get_and_set, reads=["get_*"], writes=["*_set"])
    wrap(get_and_set, reads=["get_*"], writes=["*_set"], effects={"get_and_set": Write()})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"effects": [Read()]}, "effects= is a dict of tool name to effect"),
        ({"effects": {5: Read()}}, "keyed by the names of tools, not by 5"),
        ({"effects": {"a": Read}}, r"effects\['a'\] is the class Read: write Read\(\) with brackets"),
        ({"effects": {"a": "read"}}, r"effects\['a'\] is no effect but 'read': give Pure\(\)"),
        ({"default": Write}, r"default= is the class Write"),
        ({"default": "write"}, r"default= is no effect"),
        ({"reads": "get_*"}, r"reads= is a list of names or globs, such as reads=\['get_\*'\]"),
        ({"writes": 5}, "writes= is a list"),
        ({"live": [None]}, "live= is a list of names or globs"),
        ({"reads": [""]}, "reads= is a list of names or globs"),
        ({"reads": b"get"}, "reads= is a list of names or globs"),
        ({"raeds": ["a"]}, "Guard has no option 'raeds': did you mean reads="),
    ],
)
def test_bad_declarations_say_what_to_write_instead(options, says):
    with pytest.raises(TypeError, match=says):
        Guard(**options)


def test_a_template_that_names_no_argument_of_the_tool_is_refused():
    def get_order(order_id, *, full=False): ...

    with pytest.raises(
        ValueError, match=r"'get_order'.*names the argument 'id', which the tool does not have; it has: full, order_id"
    ):
        wrap(get_order, effects={"get_order": Read("order:{id}")})
    wrap(lambda **anything: None, Read("order:{id}"))


def test_what_matches_no_tool_is_found():
    declared = of({"a": Read(), "g*": Read()}, reads=["b*", "c"])
    assert declared.unmatched(["get", "c", "x"]) == ["a", "b*"]


def test_a_decorator_is_found_on_functions_and_methods():
    class Client:
        @Read("a")
        def get(self): ...

        @staticmethod
        @Read("b")
        def plain(): ...

    assert decorated_effect(Client().get) == decorated_effect(None, Client.get) == Read("a")
    assert decorated_effect(Client.plain) == Read("b")
    assert decorated_effect(len, None, 5) is None
