"""Plain functions and methods through a guard, sync and async."""

import asyncio
import functools
import inspect
import itertools

import pytest

import ibidem
from ibidem import Guard, IbidemWarning, Read, Write, wrap
from ibidem.core.keys import canonical
from ibidem.functions import Arguments
from ibidem.testing import run_shuffled


def test_a_wrapped_function_is_like_the_original():
    def get(city: str, days: int = 3) -> dict:
        """The weather."""
        return {"city": city, "days": days}

    async def aget(city: str) -> dict:
        """The weather."""
        return {"city": city}

    for each in (get, aget):
        wrapped = wrap(each, Read(identity=each.__name__))
        assert (wrapped.__name__, wrapped.__doc__, wrapped.__module__) == (each.__name__, each.__doc__, each.__module__)
        assert inspect.signature(wrapped) == inspect.signature(each)
        assert inspect.iscoroutinefunction(wrapped) is inspect.iscoroutinefunction(each)
        assert wrapped is not each and not hasattr(each, "__ibidem__")
    assert wrap(get, Read(identity="g"))("Paris", days=1) == {"city": "Paris", "days": 1}
    assert asyncio.run(wrap(aget, Read(identity="a"))("Paris")) == {"city": "Paris"}


SIGNATURES = [
    lambda a, b=2, c=3: (a, b, c),
    lambda a, /, b=2, *, c=3: (a, b, c),
    lambda *args, c=3: (args, c),
    lambda a, *args, **kwargs: (a, args, kwargs),
    lambda a, /, **kwargs: (a, kwargs),
    lambda *, a, c=3, **kwargs: (a, c, kwargs),
    functools.partial(lambda a, b, c=3: (a, b, c), 7),
    functools.partial(lambda a, b=2, c=3: (a, b, c), b=9),
]

CALLS = [
    ((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1, 2, 3, 4), {}), ((), {"a": 1}), ((1,), {"a": 1}), ((1,), {"b": 2}),
    ((1,), {"c": 3}), ((1, 2), {"b": 2}), ((), {"a": 1, "c": 3, "b": 2}), ((1,), {"kwargs": 5}), ((1,), {"args": (2,)}),
    ((1,), {"**kwargs": {"a": 1}}), ((), {"d": 1}), ((1,), {"a": 2, "kwargs": {}}), ((1.0,), {}), ((True,), {}),
]  # fmt: skip


@pytest.mark.parametrize("nth", range(len(SIGNATURES)))
def test_two_calls_have_one_key_exactly_if_the_function_is_given_the_same(nth):
    function = SIGNATURES[nth]
    arguments_of, seen = Arguments(function), []
    for args, kwargs in CALLS:
        try:
            given = function(*args, **kwargs)
        except TypeError as error:
            with pytest.raises(TypeError) as raised:
                arguments_of(args, kwargs)
            assert str(raised.value) and str(error)
            continue
        seen.append((repr(given), canonical(arguments_of(args, kwargs))))
    assert len(seen) > 1
    for (given, key), (other, another) in itertools.combinations(seen, 2):
        assert (given == other) is (key == another), (given, other)


def test_calls_that_do_not_fit_fail_as_without_a_guard():
    def get(a, b=1): ...

    wrapped = wrap(get, Read(identity="g"))
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"x": 1})):
        with pytest.raises(TypeError):
            wrapped(*args, **kwargs)


def test_defaults_and_names_make_no_difference():
    calls = []
    get = wrap(Read(identity="g")(lambda a, b=2: calls.append((a, b))), Guard())
    get(1), get(a=1), get(1, 2), get(b=2, a=1)
    assert calls == [(1, 2)]


def test_a_mutable_default_is_keyed_by_what_it_holds():
    held, calls = [], []

    def get(x, among=held):
        calls.append(list(among))

    wrapped = wrap(get, Read(identity="g"))
    wrapped(1), wrapped(1)
    held.append("more")
    wrapped(1), wrapped(1)
    assert calls == [[], ["more"]]


def test_methods_are_kept_apart_by_what_they_are_bound_to():
    class Client:
        def __init__(self, name):
            self.name, self.calls = name, 0

        def get(self):
            self.calls += 1
            return self.name

        async def aget(self):
            return self.get()

    guard, here, there = Guard(reads=["get", "aget"]), Client("here"), Client("there")
    assert [wrap(here.get, guard)(), wrap(there.get, guard)(), wrap(here.get, guard)()] == ["here", "there", "here"]
    assert (here.calls, there.calls) == (1, 1)
    assert asyncio.run(wrap(there.aget, guard)()) == "there"


def test_callable_objects_sync_and_async():
    class Get:
        __name__ = "get"

        def __init__(self):
            self.calls = 0

        def __call__(self, x):
            self.calls += 1
            return x

    class AGet(Get):
        async def __call__(self, x):
            self.calls += 1
            return x

    get, aget = Get(), AGet()
    wrapped, awrapped = wrap(get, Read()), wrap(aget, Read())
    assert wrapped(1) == wrapped(1) == 1 and get.calls == 1

    async def main():
        return [await awrapped(1), await awrapped(1)]

    assert run_shuffled(main(), 0) == [1, 1] and aget.calls == 1


def test_generators_are_refused_and_told_why():
    def numbers():
        yield 1

    async def anumbers():
        yield 1

    for each in (numbers, anumbers):
        with pytest.raises(TypeError, match="is a generator: wrap a function that returns a list"):
            wrap(each, Read())


def test_wrapping_is_idempotent_and_a_second_guard_is_refused():
    guard = Guard(reads=["get"])

    def get():
        return 1

    once = wrap(get, guard)
    assert wrap(once, guard) is once and ibidem.guard_of(once) is guard and ibidem.guard_of(get) is None
    with pytest.raises(ValueError, match=r"'get' already passes another guard.*guard.of"):
        wrap(once, Guard(reads=["get"]))
    bound = wrap(once, guard.bind(conversation="x"))
    assert bound is not once and ibidem.guard_of(bound) is guard


def test_a_bound_guard_keeps_conversations_apart():
    guard, calls = Guard(reads=["get"]), []

    def get():
        calls.append(1)

    first, second = (wrap(get, guard.bind(conversation=name)) for name in ("1", "2"))
    first(), first(), second(), first()
    assert len(calls) == 2
    with guard.conversation("1"):
        wrap(get, guard)()
    assert len(calls) == 2, "what is bound and what is set around a call are one conversation"


def test_without_a_conversation_it_is_the_process():
    guard, calls = Guard(reads=["get"]), []
    wrapped = wrap(lambda: calls.append(1), guard.replace(reads=["<lambda>"]))
    wrapped()

    async def main():
        wrapped()

    asyncio.run(main())
    assert len(calls) == 1


def test_a_function_that_nobody_declared_runs_each_time():
    calls = []
    with pytest.warns(IbidemWarning, match="nothing is declared"):
        (wrapped,) = wrap([lambda: calls.append(1)])
    wrapped(), wrapped()
    assert len(calls) == 2


def test_arguments_without_a_key_are_passed_as_they_are():
    given = []
    get = wrap(lambda x: given.append(x), Read(identity="g"))
    thing, rows = object(), [object()]
    get(thing), get(rows)
    assert given[0] is thing and given[1] is rows


def test_what_a_write_is_given_is_its_own():
    rows = []

    def put(rows):
        rows.append(1)

    wrap(put, Write())(rows)
    assert rows == [1], "a write may fill in what it was given, as without a guard"


class Lazy:
    """Something to await that is neither a coroutine nor a future, as queries of some libraries are."""

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()


GIVEN = {"coroutine": lambda coroutine: coroutine, "task": asyncio.ensure_future, "lazy": Lazy}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("effects", [{"put": Write("k:{key}")}, {}], ids=["declared", "undeclared"])
def test_a_change_that_a_function_only_gives_to_await_is_over_when_that_is_r22(given, effects):
    """A decorator may hide that a function is a coroutine function; what it does it does when its answer is awaited."""
    state, begun, go = {"a": 0}, asyncio.Event(), asyncio.Event()

    async def really(key, value):
        begun.set()
        await go.wait()
        state[key] = value
        return "done"

    def put(key, value):
        return GIVEN[given](really(key, value))

    async def main():
        guard = Guard({"get": Read("k:{key}", identity="get"), **effects})
        get, changing = wrap([named("get", lambda key: state[key]), named("put", put)], guard)
        task = asyncio.ensure_future(changing("a", 1)) if given != "lazy" else asyncio.create_task(awaiting(changing))
        await begun.wait()
        assert get("a") == 0
        go.set()
        assert await task == "done"
        assert get("a") == 1, "what was read while it changed is not remembered"
        return [get("a"), guard.stats().memo]

    async def awaiting(changing):
        return await changing("a", 1)

    assert asyncio.run(main()) == [1, 0 if given == "lazy" else 1]


def named(name, function):
    function.__name__ = name
    return function


def test_a_change_that_loses_its_answer_while_it_is_awaited_may_still_act():
    async def really():
        raise ConnectionResetError

    guard = Guard({"get": Read("k", identity="get"), "put": Write("k", settle="1h")})
    get, put = wrap([named("get", lambda: 1), named("put", lambda: really())], guard)
    with pytest.raises(ConnectionResetError):
        asyncio.run(put())
    get(), get()
    assert guard.stats().memo == 0
