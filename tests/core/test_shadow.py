"""`Guard(mode="shadow")`: every call runs, nothing is served, and the report says what a memo would have done."""

import asyncio
import contextlib
import json
import threading
import uuid

import pytest
import worlds
from test_memo import SOAK
from worlds import Guarded

from ibidem import Guard, Live, Memory, Nested, Pure, Read, Write, wrap
from ibidem.layers.comparing import Answer
from ibidem.layers.shadow import Shadow
from ibidem.report.trials import ENOUGH, Trials
from ibidem.testing import Clock, run_shuffled

SEEDS = 3000 if SOAK else 300


class Shop:
    """Tools that count their runs, behind a guard in shadow mode; `answer` is what the read finds."""

    def __init__(self, effect=None, **options):
        self.events = []
        self.clock = Clock()
        self.guard = Guard(mode="shadow", store=Memory(clock=self.clock), on_event=self.events.append, **options)
        self.runs, self.answer = 0, "old"

        def look(order_id="1"):
            self.runs += 1
            return self.answer() if callable(self.answer) else self.answer

        self.look = self.wrapped(look, effect or Read("order:{order_id}", ttl=60, identity="look"))
        self.change = self.wrapped(lambda order_id="1": "ok", Write("order:{order_id}"))

    def wrapped(self, function, effect=None):
        return wrap(function if effect is None else effect(function), self.guard)

    @property
    def found(self):
        return next(row for row in self.guard.report() if row.tool == "look")

    def counts(self, *names):
        return tuple(getattr(self.found, name) for name in names)


# -- what runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effect", [Read(identity="t"), Pure(identity="t"), Live(merge=True), Live(), Nested(), Write(), None]
)
def test_every_call_runs_and_is_answered_by_its_own_run(effect):
    guard, runs = Guard(mode="shadow"), []
    tool = wrap((effect or (lambda f: f))(lambda: runs.append(1) or len(runs)), guard)
    assert [tool(), tool(), tool()] == [1, 2, 3]
    stats = guard.stats()
    assert (stats.calls, stats.ran, stats.saved) == (3, 3, 0)


def test_identical_calls_at_the_same_time_all_run():
    async def main():
        guard, runs = Guard(mode="shadow"), []

        async def look():
            runs.append(1)
            await asyncio.sleep(1)
            return len(runs)

        tool = wrap(Read("a")(look), guard)
        await asyncio.gather(*(tool() for _ in range(5)))
        assert len(runs) == 5 and guard.stats().ran == 5

    run_shuffled(main(), 0)


def test_a_guard_that_is_not_in_shadow_serves_the_same_calls():
    """The control: with the memo, the calls above are answered without a run."""
    guard, runs = Guard(), []
    tool = wrap(Read(identity="t")(lambda: runs.append(1)), guard)
    tool(), tool()
    assert len(runs) == 1 and guard.report().rows == ()
    assert "nothing yet" in repr(guard.report()) and "shadow" in guard.report()._repr_html_()


def test_what_a_tool_raises_passes_and_is_not_remembered():
    shop = Shop()
    shop.answer = lambda: 1 / 0
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            shop.look()
    assert shop.counts("calls", "served") == (2, 0)


# -- what would have been served ---------------------------------------------------------------------------------------


def test_answers_that_would_have_been_right_are_counted():
    shop = Shop()
    for _ in range(3):
        shop.look()
    assert shop.counts("calls", "served", "compared", "differed", "advice") == (3, 2, 2, 0, "")
    assert shop.found.resources == "order:{order_id}"


def test_answers_that_would_have_been_wrong_are_counted_told_and_explained():
    shop = Shop()
    shop.look()
    shop.clock.move(30)
    shop.answer = "new"
    assert shop.look() == "new"
    assert shop.counts("served", "compared", "differed") == (1, 1, 1)
    assert all(word in shop.found.advice for word in ("name the resources", "ttl=", "Live()"))
    told = [event for event in shop.events if event.kind == "mismatch"]
    assert [(event.tool, event.age) for event in told] == [("look", 30.0)]


def test_a_write_forgets_as_in_earnest():
    shop = Shop()
    shop.look("1"), shop.look("2")
    shop.change("1")
    shop.answer = "new"
    shop.look("1")
    assert shop.counts("served", "differed") == (0, 0)
    shop.look("2")
    assert shop.counts("served", "differed") == (1, 1), "the write said nothing of this one"


def test_an_undeclared_call_forgets_as_in_earnest():
    shop = Shop()
    shop.look()
    shop.wrapped(lambda: None)()
    shop.look()
    assert shop.counts("calls", "served") == (2, 0)


def test_an_entry_ends_when_it_would_have_ended_however_often_the_tool_ran_since():
    shop = Shop()
    for _ in range(4):  # at 0, 25, 50 and 75 seconds; it lives for 60
        shop.look()
        shop.clock.move(25)
    assert shop.counts("calls", "served") == (4, 2)


def test_a_difference_that_a_change_meanwhile_explains_tells_nothing():
    shop = Shop()
    shop.look()

    def changing():
        shop.guard.touch("order:1")
        return "new"

    shop.answer = changing
    shop.look()
    assert shop.counts("served", "compared", "differed", "unclear") == (1, 0, 0, 1)


def test_control_without_a_look_at_the_stamps_such_a_difference_would_be_held_against_the_tool(monkeypatch):
    monkeypatch.setattr(Shadow, "holds", lambda *_: True)
    shop = Shop()
    shop.look()
    shop.answer = lambda: shop.guard.touch("order:1") or "new"
    shop.look()
    assert shop.counts("differed", "unclear") == (1, 0)


def test_a_difference_after_everything_was_forgotten_meanwhile_tells_nothing():
    shop = Shop()
    shop.look()
    shop.answer = lambda: shop.guard.forget() and "new"
    shop.look()
    assert shop.counts("differed", "unclear") == (0, 1)


def test_a_run_that_fails_where_an_answer_would_have_been_served_is_counted_on_its_own():
    shop = Shop()
    shop.look()
    shop.answer = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        shop.look()
    assert shop.counts("served", "compared", "differed", "failed", "unclear") == (1, 0, 0, 1, 0)


def test_a_run_that_is_cancelled_tells_nothing():
    async def main():
        guard, hold = Guard(mode="shadow"), []

        async def look():
            if hold:
                await asyncio.get_running_loop().create_future()
            return 1

        tool = wrap(Read("a")(look), guard)
        await tool()
        hold.append(1)
        task = asyncio.create_task(tool())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (row,) = guard.report()
        assert (row.served, row.unclear, row.differed) == (1, 1, 0)
        assert len(guard._memo.flights) == 0

    run_shuffled(main(), 0)


@pytest.mark.parametrize(
    "value", [float("nan"), [{"type": "text", "text": "a", "id": "lc_"}], {"a": [1, None]}], ids=repr
)
def test_equal_answers_do_not_differ(value):
    def answer():
        drawn = json.loads(json.dumps(value))
        if isinstance(drawn, list):
            drawn[0]["id"] += str(uuid.uuid4())
        return drawn

    shop = Shop()
    shop.answer = answer
    shop.look(), shop.look()
    assert shop.counts("compared", "differed") == (1, 0)


def test_answers_without_an_equality_tell_nothing():
    shop = Shop()
    shop.answer = object
    shop.look(), shop.look()
    assert shop.counts("served", "compared", "unclear") == (1, 0, 1)


@pytest.mark.parametrize(("fifo", "wrong"), [(True, 2), (False, None)])
def test_a_call_that_would_have_shared_a_run_is_compared_with_it(fifo, wrong):
    async def main(seed):
        guard, runs = Guard(mode="shadow"), []

        async def look():
            runs.append(1)
            mine = len(runs)
            await asyncio.sleep(1)
            return mine

        tool = wrap(Read("a")(look), guard)
        await asyncio.gather(*(tool() for _ in range(3)))
        (row,) = guard.report()
        assert row.calls == 3 and row.served == row.differed + row.unclear == 2
        assert wrong is None or row.differed == wrong
        assert len(guard._memo.flights) == 0

    for seed in range(20):
        run_shuffled(main(seed), seed, fifo=fifo)


def test_a_cancelled_call_ends_although_another_would_have_shared_its_run():
    async def main():
        guard, ended = Guard(mode="shadow"), []

        async def look(hold):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                ended.append(1)
                raise
            return 1

        tool = wrap(Read("a")(look), guard)
        first, second = asyncio.create_task(tool(1)), asyncio.create_task(tool(1))
        await asyncio.sleep(1)
        first.cancel()
        assert await second == 1
        assert ended == [1] and guard.stats().total.stopped == 1

    run_shuffled(main(), 0)


def test_the_memo_that_comes_after_finds_what_the_shadow_has_stored():
    shop = Shop()
    shop.look()
    assert [row.value for row in shop.guard.replace(mode=None).entries()] == ["old"]


def crowded(world):
    """A world in which every change passes the guard: nothing may be found wrong that is not."""
    world.crowded = True
    return Guarded(world, Guard(mode="shadow"))


@pytest.mark.soak
def test_r22_no_answer_is_called_wrong_whose_changes_the_guard_knows():
    compared = 0
    for seed in range(SEEDS):
        world = worlds.play(seed, crowded)
        rows = world.tools.guard.report()
        assert world.wrong == [] and sum(row.differed for row in rows) == 0, f"seed {seed}"
        assert len(world.tools) == 0, f"seed {seed}"
        assert world.unclear or not world.tools.guard.store.stamps._open, f"seed {seed}"
        assert world.tools.guard.stats().saved == 0
        compared += sum(row.compared for row in rows)
    assert compared > SEEDS / 2, "too little was compared to show anything"


def test_r22_control_without_a_look_at_the_stamps_answers_are_called_wrong(monkeypatch):
    monkeypatch.setattr(Answer, "verdict", lambda self, outcome: "same" if self.value == outcome.value else "differed")
    found = [row for seed in range(50) for row in worlds.play(seed, crowded).tools.guard.report()]
    assert sum(row.differed for row in found) > 0


def test_an_answer_that_was_found_wrong_is_compared_on_and_never_served_by_the_memo_that_comes_after():
    shop = Shop()
    shop.look()
    shop.answer = "new"
    for _ in range(3):
        shop.look()
    assert shop.counts("served", "differed") == (3, 3), "a memo would have been wrong three times"
    assert [row.value for row in shop.guard.replace(mode=None).entries()] == ["new"]


def test_an_answer_that_was_found_wrong_goes_even_if_the_right_one_cannot_be_stored():
    shop = Shop()
    shop.look()
    shop.answer = lambda: (n for n in ())
    shop.look()
    assert shop.counts("served", "differed") == (1, 1)
    assert shop.guard.replace(mode=None).entries().rows == ()


def test_an_answer_that_was_found_wrong_is_not_on_the_disk_either(tmp_path):
    state, runs = ["old"], []

    def look(order_id="1"):
        runs.append(1)
        return state[0]

    def asked(**options):
        """Ask a guard that begins with what the one before it has left on the disk."""
        with contextlib.closing(Guard(store=tmp_path / "memo", key="k" * 32, **options)) as guard:
            tool = wrap(Read("order:{order_id}", identity="look")(look), guard)
            with guard.conversation("t"):
                found = [tool(), [row.value for row in guard.entries()]]
            guard.flush()
            return found

    assert asked(mode="shadow") == ["old", ["old"]]
    state[0] = "new"
    assert asked(mode="shadow") == ["new", ["new"]]
    assert asked() == ["new", ["new"]] and len(runs) == 2, "the last was served"


def test_an_answer_that_was_found_wrong_ends_as_it_would_have():
    endings = {
        "a write": lambda shop: shop.change(),
        "its time": lambda shop: shop.clock.move(60),
        "a purge": lambda shop: shop.guard.forget(),
    }
    for end in endings.values():
        shop = Shop()
        shop.look()
        shop.answer = "new"
        shop.look()
        end(shop)
        shop.look(), shop.look()
        assert shop.counts("served", "differed") == (2, 1)


# -- repeats of undeclared tools -----------------------------------------------------------------------------------------


def repeated(*answers, between=None, effects=None):
    guard = Guard(effects, mode="shadow")
    given = iter(answers)
    tool = wrap(lambda x: next(given), guard)
    for _ in answers:
        tool(1)
        if between is not None:
            between(guard)
    return guard, guard.report()[0] if len(guard.report()) == 1 else next(
        r for r in guard.report() if r.tool == "<lambda>"
    )


def other(guard):
    def other_tool():
        return None

    wrap(other_tool, guard)()


def test_a_tool_that_never_differed_is_suggested_as_a_read_if_it_only_reads():
    _, row = repeated(*["same"] * (ENOUGH + 1))
    assert (row.repeats, row.changed) == (ENOUGH, 0)
    assert "if it only reads, Read(...)" in row.advice and "Pure" not in row.advice


def test_a_tool_that_never_differed_after_other_calls_is_suggested_as_perhaps_pure():
    _, row = repeated(*["same"] * (ENOUGH + 1), between=other)
    assert "if it only reads" in row.advice and "Pure()" in row.advice


def test_fewer_repeats_suggest_nothing():
    _, row = repeated(*["same"] * ENOUGH)
    assert row.advice == ""


def test_one_difference_is_enough_to_suggest_nothing_to_remember():
    _, row = repeated(*["same"] * 20, "other", "same")
    assert row.changed == 2 and "leave it undeclared" in row.advice and "Read" not in row.advice


def test_no_suggestion_is_put_as_a_fact():
    guard, _ = repeated(*["ok"] * 20)
    assert "no finding" in repr(guard.report()) and "writes and answers the same" in guard.report()._repr_html_()


def test_repeats_are_those_of_one_conversation():
    guard = Guard(mode="shadow")
    tool = wrap(lambda x: "same", guard)
    for name in "abcdef":
        with guard.conversation(name):
            tool(1)
            tool(2)
    assert guard.report()[0].repeats == 0


def test_failures_are_no_repeats():
    guard, answers = Guard(mode="shadow"), iter([1, 0, 1])
    tool = wrap(lambda x: 1 / next(answers), guard)
    tool(1)
    with pytest.raises(ZeroDivisionError):
        tool(1)
    tool(1)
    assert guard.report()[0].repeats == 1


def test_answers_that_cannot_be_compared_suggest_nothing():
    _, row = repeated(*[object() for _ in range(20)])
    assert row.advice == "" and row.unclear == 19 and row.changed == 0


def test_a_tool_that_changes_its_arguments_is_known_by_those_it_was_given():
    guard = Guard(mode="shadow")
    tool = wrap(lambda parts: parts.append(1) or "same", guard)
    for _ in range(3):
        tool([])
    assert guard.report()[0].repeats == 2


def test_declared_tools_are_not_watched_for_repeats():
    shop = Shop()
    for _ in range(20):
        shop.change()
    assert all(row.repeats == 0 for row in shop.guard.report())


# -- bounds and options ------------------------------------------------------------------------------------------------


def test_memory_is_bounded():
    guard = Guard(mode="shadow")
    tool = wrap(lambda x: "x" * 10_000, guard)
    for n in range(2000):
        with guard.conversation(str(n)):
            tool(n)
    kept = guard._memo.repeats
    assert sum(entry.size for _, entry in kept._answers.entries()) <= 8 * 2**20 and len(kept._last) <= 1000


def test_tools_are_counted_together_beyond_a_bound():
    trials, guard = Trials("shadow"), Guard()
    tool = wrap(lambda: 1, guard).__ibidem_tool__
    for n in range(1500):
        trials.called(tool.replace(name=str(n)))
    report = trials.report(guard.stats())
    assert len(report) == 1001 and sum(row.calls for row in report) == 1500


def test_the_report_draws_itself():
    shop = Shop()
    shop.look(), shop.look()
    text, page = repr(shop.guard.report()), shop.guard.report()._repr_html_()
    assert "order:{order_id}" in text and "<table" in page and "order:{order_id}" in page
    assert "shadow" in repr(shop.guard).lower() and isinstance(shop.guard._memo, Shadow)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"mode": "shaddow"}, ValueError, "'shadow'"),
        ({"mode": True}, ValueError, "'shadow'"),
        ({"check": 0}, ValueError, "at most 1"),
        ({"check": 1.5}, ValueError, "at most 1"),
        ({"check": -0.1}, ValueError, "at most 1"),
        ({"check": float("nan")}, ValueError, "at most 1"),
        ({"check": True}, TypeError, "share"),
        ({"check": "1%"}, TypeError, "share"),
        ({"mode": "shadow", "check": 0.5}, ValueError, "leave check= out"),
    ],
    ids=repr,
)
def test_options_that_make_no_sense_are_refused(options, kind, says):
    with pytest.raises(kind, match=says):
        Guard(**options)


def test_threads_count_right():
    shop, rounds = Shop(), 200
    threads = [threading.Thread(target=lambda: [shop.look() for _ in range(rounds)]) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert shop.runs <= 4 * rounds and shop.counts("calls", "differed") == (4 * rounds, 0)
