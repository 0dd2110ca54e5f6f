"""Identity: a text that changes when what a tool would answer may have changed."""

import functools
import gc
import math
import subprocess
import sys
import textwrap
import threading
import types

import pytest

from ibidem import Guard, Read, wrap
from ibidem.core.identity import OBJECT, Identity, of_object
from ibidem.testing import eager_switching, in_threads


def notebook(**names):
    """A namespace like that of a notebook, and a way to run a cell in it."""
    space = {"__name__": "__main__", **names}

    def cell(source):
        exec(compile(textwrap.dedent(source), "<cell>", "exec"), space)
        return space

    return space, cell


def of(source, name="tool"):
    """The identity of a function that a notebook's cell defines."""
    space, cell = notebook()
    return Identity(cell(source)[name])()


def test_the_same_source_has_the_same_identity():
    assert of("def tool(x): return x + 1") == of("def tool(x): return x + 1")
    assert of("def tool(x): return x + 1").startswith("sha256:")


BASE = "def tool(x, y=1, *, z='a'): return helper(x)[0] + 1\ndef helper(x): return [x]"


@pytest.mark.parametrize(
    "changed",
    [
        BASE.replace("+ 1", "+ 2"),
        BASE.replace("+ 1", "+ 1.0"),
        BASE.replace("+ 1", "- 1"),
        BASE.replace("y=1", "y=2"),
        BASE.replace("y=1", "y=True"),
        BASE.replace("z='a'", "z='b'"),
        BASE.replace("*, z", "z"),
        BASE.replace("return [x]", "return [x, x]"),
        BASE.replace("return [x]", "return (x,)"),
        BASE.replace("def tool", "async def tool"),
        BASE.replace("helper(x)", "helper(y)"),
        BASE + "\ndef more(): pass\nhelper = more",
        "def outer():\n    def tool(x): return x\n    return tool\ntool = outer()",
    ],
)
def test_any_change_of_the_code_changes_it(changed):
    assert of(changed) != of(BASE)


def test_what_protects_the_code_belongs_to_it():
    """Where exceptions are caught stands in a table beside the code."""
    codes = [
        compile(
            f"def tool():\n    try:\n        {first}\n    except {error}:\n        pass\n    {last}", "<cell>", "exec"
        )
        for first, error, last in (("a(); b()", "E", "c()"), ("a()", "E", "b(); c()"))
    ]
    spaces = [{"__name__": "__main__"} for _ in codes]
    for code, space in zip(codes, spaces):
        exec(code, space)
    first, second = (space["tool"] for space in spaces)
    table = first.__code__.replace(co_exceptiontable=b"")
    assert Identity(first)() != Identity(second)()
    assert Identity(first)() != Identity(types.FunctionType(table, first.__globals__, "tool"))()


def test_editing_a_function_that_it_names_changes_it():
    space, cell = notebook()
    cell("""
        def deep(x): return x
        def helper(x): return deep(x)
        def tool(x): return helper(x)
    """)
    identity = Identity(space["tool"])
    first = identity()
    assert identity() == first
    cell("def helper(x): return deep(x) + 1")
    second = identity()
    cell("def deep(x): return -x")
    third = identity()
    cell("def deep(x): return x\ndef helper(x): return deep(x)")
    assert len({first, second, third}) == 3
    assert identity() == first, "the same source again is the same tool again"


def test_a_helper_that_is_deleted_or_is_no_function_any_more_changes_it():
    space, cell = notebook()
    cell("def helper(x): return x\ndef tool(x): return helper(x)")
    identity = Identity(space["tool"])
    first = identity()
    helper = space.pop("helper")
    assert identity() != first
    space["helper"] = helper
    cell("def more(x): return helper(x)")
    space["helper"] = 5
    assert identity() != first


def test_swapping_the_code_of_a_helper_changes_it():
    space, cell = notebook()
    cell("def helper(x): return x\ndef other(x): return -x\ndef tool(x): return helper(x)")
    identity = Identity(space["tool"])
    first = identity()
    space["helper"].__code__ = space["other"].__code__
    assert identity() != first


def test_helpers_are_found_in_comprehensions_lambdas_and_inner_functions():
    for body in ("[helper(y) for y in x]", "(lambda: helper(x))()", "sorted(x, key=helper)"):
        source = f"def tool(x): return {body}\ndef helper(x): return HERE"
        assert of(source.replace("HERE", "1")) != of(source.replace("HERE", "2"))


@pytest.mark.parametrize("path", ["util.helper", "package.util.helper"])
def test_a_helper_in_a_module_of_the_project_belongs_to_it(path):
    util = types.ModuleType("their_util")
    util.__dict__["__name__"] = "their_util"
    exec(compile("def helper(x): return x", "/project/their_util.py", "exec"), util.__dict__)
    package = types.ModuleType("their")
    package.util = util
    space, cell = notebook(**{"util.helper": {"util": util}, "package.util.helper": {"package": package}}[path])
    cell(f"def tool(x): return {path}(x)")
    identity = Identity(space["tool"])
    first = identity()
    exec(compile("def helper(x): return x + 1", "/project/their_util.py", "exec"), util.__dict__)
    assert identity() != first


@pytest.mark.parametrize("decorator", ["functools.cache", "functools.lru_cache(maxsize=None)", "plain", "wrapped"])
def test_a_decorated_helper_belongs_to_it(decorator):
    def plain(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    identities = []
    for n in (1, 2):
        space, cell = notebook(functools=functools, plain=plain, wrapped=lambda f: wrap(f, Guard(reads=["helper"])))
        cell(f"@{decorator}\ndef helper(x): return x + {n}\ndef tool(x): return helper(x)")
        identities.append(Identity(space["tool"])())
    assert identities[0] != identities[1]


def test_a_tool_that_names_a_wrapped_tool_is_still_named_exactly():
    space, cell = notebook()
    cell("def inner(x): return x\ndef tool(x): return inner(x)")
    space["inner"] = wrap(space["inner"], Guard(reads=["inner"]))
    assert Identity(space["tool"])().startswith("sha256:")


def test_functions_that_name_each_other_have_an_identity():
    source = "def tool(n): return even(n)\ndef even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)"
    assert of(source).startswith("sha256:")
    assert of(source) != of(source.replace("n != 0", "n > 0"))


def test_installed_code_and_the_standard_library_do_not_belong_to_it():
    space, cell = notebook(math=math, dedent=textwrap.dedent, wraps=functools.wraps)
    cell("def tool(x): return math.sqrt(len(dedent(x)))")
    identity = Identity(space["tool"])
    first = identity()
    space["dedent"] = textwrap.indent
    assert identity() == first


# -- closures, defaults, partial arguments ---------------------------------------------------------------------------


def closing_over(value):
    def tool(x):
        return value, x

    return tool


def test_closure_cells_are_told_apart():
    assert Identity(closing_over(1))() == Identity(closing_over(1))()
    values = [1, 1.0, True, "1", None, (1, 2), (1, 2.0), b"1", frozenset({1})]
    assert len({Identity(closing_over(value))() for value in values}) == len(values)


def test_a_closure_over_a_function_is_named_by_it():
    assert (
        Identity(closing_over(lambda: 1))()
        == Identity(closing_over(lambda: 1))()
        != Identity(closing_over(lambda: 2))()
    )


@pytest.mark.parametrize("make", [object, list, dict, set, threading.Lock, lambda: iter("a")])
def test_a_closure_over_what_can_change_is_this_very_object(make):
    """Two closures may hold equal lists now and different ones later: one must not be given the other's results."""
    first, second = closing_over(make()), closing_over(make())
    one = Identity(first)
    assert one() == one() == Identity(first)()
    assert one().startswith(OBJECT)
    assert Identity(second)() != one()


@pytest.mark.parametrize("start", [{}, {"b": "as yet the same"}])
def test_two_closures_whose_contents_grow_apart_share_nothing(start):
    def make():
        rows = dict(start)

        def tool(name):
            return rows.get(name)

        return rows, tool

    guard = Guard(reads=["tool"])
    (mine, read_mine), (yours, read_yours) = make(), make()
    read_mine, read_yours = wrap(read_mine, guard), wrap(read_yours, guard)
    assert read_mine("a") is read_yours("a") is None
    mine["b"], yours["b"] = "mine", "yours"
    assert (read_mine("b"), read_yours("b")) == ("mine", "yours")


def test_a_closure_over_settings_is_named_by_them_as_long_as_they_stay():
    settings = {"url": "https://a", "headers": ["x"]}
    first, second = Identity(closing_over(settings)), Identity(closing_over({**settings, "headers": ["x"]}))
    assert first() == second() == first()
    assert first().startswith("sha256:")
    assert Identity(closing_over({"url": "https://b", "headers": ["x"]}))() != first()
    settings["headers"].append("y")
    changed = first()
    assert changed.startswith(OBJECT) and second().startswith("sha256:")
    settings["headers"].pop()
    assert first() == changed, "what has changed once may change again"


def test_what_has_been_told_apart_once_is_not_named_by_what_it_holds_later():
    calls = []
    tool = closing_over(calls)
    first = Identity(tool)()
    calls.append(1)
    assert Identity(tool)() == first and first.startswith(OBJECT)


def test_what_holds_much_is_this_very_object():
    assert Identity(closing_over({"rows": ["x" * 100] * 100}))().startswith(OBJECT)


def test_two_closures_that_count_share_nothing():
    def make(start):
        count = 0

        def tool():
            nonlocal count
            count += start
            return count

        return tool

    guard = Guard(reads=["tool"])
    first, second = make(1), make(1)
    first()
    assert wrap(second, guard)() == 1
    assert wrap(first, guard)() == 2


def test_an_empty_cell_is_this_very_object():
    def make():
        def tool():
            return later

        identity = Identity(tool)()
        later = 1
        return identity, later

    assert make()[0].startswith(OBJECT)


def test_partial_arguments_belong_to_it():
    def tool(x, y=0):
        return x, y

    partial = functools.partial
    named = [
        tool,
        partial(tool),
        partial(tool, 1),
        partial(tool, 1.0),
        partial(tool, y=1),
        partial(partial(tool, 1), y=1),
    ]
    assert len({Identity(each)() for each in named}) == len(named)
    assert all(Identity(each)().startswith("sha256:") for each in named)
    state = partial(tool, [])
    assert Identity(state)().startswith(OBJECT), "what it holds can change"
    assert Identity(state)() != Identity(partial(tool, []))()


# -- this very object --------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, region):
        self.region = region

    def get(self):
        return self.region

    def put(self):
        return self.region

    def __call__(self):
        return self.region

    @classmethod
    def make(cls):
        return cls("made")

    @staticmethod
    def plain():
        return "plain"


class Bare:
    __slots__ = ()

    def get(self):
        return 1


def test_a_bound_method_is_named_by_what_it_is_bound_to():
    here, there = Client("here"), Client("there")
    assert Identity(here.get)() == Identity(here.get)()
    found = [here.get, there.get, here.put, here, there, Client.make]
    assert len({Identity(each)() for each in found}) == len(found)
    assert all(Identity(each)().startswith(OBJECT) for each in found)
    assert Identity(Client.plain)().startswith("sha256:")


def test_two_functions_of_one_name_bound_to_one_object_are_two():
    owner = Client("here")
    found = []
    for n in (1, 2):
        space = {"n": n}
        exec("def get(self): return n", space)
        found.append(types.MethodType(space["get"], owner))
    assert Identity(found[0])() != Identity(found[1])()


def test_a_builtin_is_this_very_object():
    assert Identity(len)() == Identity(len)() != Identity(sorted)()
    assert Identity(len)().startswith(OBJECT)


def test_an_object_that_cannot_be_referred_to_is_never_the_same_twice():
    bare = Bare()
    assert Identity(bare.get)() != Identity(bare.get)()


def test_no_object_is_taken_for_one_that_is_gone():
    seen = set()
    for _ in range(200):
        thing = Client("x")
        text = of_object(thing)
        assert text == of_object(thing)
        assert text not in seen
        seen.add(text)
        del thing
    gc.collect()


def test_functions_without_a_module_have_an_identity():
    """`exec` in a bare dictionary leaves them without one."""
    space = {"__name__": None}
    exec("def helper(x): return x\ndef tool(x): return helper(x)", space)
    space["helper"].__module__ = space["tool"].__module__ = None
    assert Identity(space["tool"])()
    assert wrap(space["tool"], Read())(1) == 1


def test_facts_belong_to_it():
    def tool():
        pass

    assert Identity(tool, facts=lambda: 1)() != Identity(tool, facts=lambda: 2)() != Identity(tool)()
    assert Identity(tool, facts=lambda: object())().startswith(OBJECT)


def test_no_thread_is_given_the_text_of_before():
    """A helper is edited while other threads ask: whoever asks after that is told the new text."""
    space, cell = notebook()
    cell("def helper(): return 0\ndef tool(): return helper()")
    expected = {}
    for n in range(2):
        cell(f"def helper(): return {n}")
        expected[n] = Identity(space["tool"])()
    identity, version, rounds = Identity(space["tool"]), [0], 150
    helpers = [notebook()[1](f"def helper(): return {n}")["helper"] for n in range(2)]

    def edit():
        for n in range(rounds):
            space["helper"] = helpers[n % 2]
            version[0] = n
        version[0] = None

    def ask():
        while True:
            before = version[0]
            text = identity()
            if before is None or version[0] is None:
                return
            assert text in expected.values()
            if before == version[0] and space["helper"] is helpers[before % 2]:
                assert text in {expected[before % 2], expected[(before + 1) % 2]}

    space["helper"] = helpers[0]
    with eager_switching():
        in_threads(edit, ask, ask)


def test_the_text_and_what_it_was_made_of_are_kept_as_one():
    """Kept apart, a thread could see the new function and answer with the old text, or with none at all."""
    space, cell = notebook()
    cell("def helper(): return 0\ndef tool(): return helper()")
    identity = Identity(space["tool"])
    kept = dict(vars(identity))
    identity()
    assert sum(vars(identity)[name] is not value for name, value in kept.items()) == 1


def test_it_is_the_same_in_another_process():
    program = textwrap.dedent("""
        from ibidem.core.identity import Identity
        space = {"__name__": "__main__"}
        exec("def helper(x, s={'a', 'b'}): return x in {'p', 'q', 'r'}\\ndef tool(x): return helper(x)", space)
        print(Identity(space["tool"])())
    """)
    texts = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                       env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1 and texts.pop().startswith("sha256:")
