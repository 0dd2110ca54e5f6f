"""`Guard(check=...)`: a share of the hits is run again beside serving them, and what was wrong is not remembered again."""

import asyncio
import gc
import logging
import threading
import warnings

import pytest
import worlds
from test_flights import until, until_blocking
from test_memo import SOAK
from worlds import Guarded

from ibidem import Breaker, Guard, Memory, Pure, Read, Retry, Write, wrap
from ibidem.core.pool import POOL
from ibidem.layers import checked
from ibidem.layers.checked import REASON, Checked, Lots
from ibidem.layers.comparing import Answer
from ibidem.testing import Clock, a_key, run_shuffled


class Shop:
    """A read behind a guard that checks; sync or async, it answers what `answer` says."""

    def __init__(self, way="async", effect=None, check=1, **options):
        self.events, self.runs, self.answer = [], 0, "old"
        self.clock = Clock()
        self.guard = Guard(check=check, store=Memory(clock=self.clock), on_event=self.events.append, **options)
        effect = effect or Read("order:{order_id}", identity="look")

        def look(order_id="1"):
            self.runs += 1
            return self.answer() if callable(self.answer) else self.answer

        async def alook(order_id="1"):
            self.runs += 1
            return (await self.answer()) if callable(self.answer) else self.answer

        alook.__name__ = "look"
        self.way = way
        self._look = wrap(effect(look if way == "sync" else alook), self.guard)

    async def look(self, *args):
        return self._look(*args) if self.way == "sync" else await self._look(*args)

    @property
    def told_of_mismatch(self):
        return any(event.kind == "mismatch" for event in self.events)

    async def judged(self, count=1):
        """Wait until so many second runs have been judged, and give what was found."""
        await until(lambda: sum(sum(f.verdicts.values()) for f in self.guard.trials._found.values()) >= count)
        return next(row for row in self.guard.report() if row.tool == "look")


SEEDS = 3000 if SOAK else 300

BOTH = pytest.mark.parametrize("way", ["sync", "async"])


def play(main):
    return asyncio.run(main())


# -- beside serving ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("effect", [Pure(identity="look"), Read("order:{order_id}", identity="look")], ids=repr)
def test_a_hit_that_is_right_is_served_and_goes_on_being_served(way, effect):
    async def main():
        shop = Shop(way, effect)
        assert await shop.look() == "old"
        assert await shop.look() == "old"
        row = await shop.judged()
        assert (row.compared, row.differed, row.failed, row.unclear) == (1, 0, 0, 0)
        assert shop.runs == 2 and len(shop.guard.entries()) == 1 and not shop.guard.trials.distrusted

    play(main)


@BOTH
def test_a_second_run_has_the_time_and_the_retries_of_a_call_r31(way):
    async def main():
        failing = ["old", ConnectionResetError(), "old"]
        retry = Retry(max_retries=1, first_delay="1ms")
        shop = Shop(way, timeout=20, retry=retry, breaker=Breaker())

        def answer():
            found = failing.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        async def aanswer():
            return answer()

        shop.answer = answer if way == "sync" else aanswer
        assert [await shop.look(), await shop.look()] == ["old", "old"]
        row = await shop.judged()
        assert (row.compared, row.failed, row.unclear) == (1, 0, 0)
        assert shop.runs == 3 and not failing
        assert shop.guard.stats().calls == 2, "a second run is nobody's call"

    play(main)


@BOTH
def test_a_second_run_that_hangs_is_given_up_and_says_nothing(way):
    async def main():
        let = threading.Event()
        shop = Shop(way, timeout=0.2)

        async def hang():
            await asyncio.sleep(60)

        await shop.look()
        shop.answer = (lambda: let.wait(20)) if way == "sync" else hang
        assert await shop.look() == "old"
        row = await shop.judged()
        assert (row.compared, row.differed, row.unclear) == (0, 0, 1)
        assert await shop.look() == "old"
        let.set()

    play(main)


def test_the_caller_does_not_wait_for_the_second_run():
    async def main():
        shop, let = Shop(), asyncio.Event()
        await shop.look()

        async def held():
            await let.wait()
            return "old"

        shop.answer = held
        assert await shop.look() == "old"
        assert shop.runs == 1, "it has not even begun"
        await until(lambda: shop.runs == 2)
        let.set()
        assert (await shop.judged()).compared == 1

    play(main)


def test_a_synchronous_caller_does_not_wait_for_the_second_run():
    shop, let = Shop("sync"), threading.Event()
    shop._look()
    shop.answer = lambda: let.wait(20) and "old"
    assert shop._look() == "old"
    let.set()
    until_blocking(lambda: shop.guard.report().rows)
    assert shop.guard.report()[0].compared == 1


@BOTH
def test_a_second_run_is_nobodys_call_and_stores_nothing(way):
    async def main():
        shop = Shop(way)
        await shop.look()
        before = shop.guard.entries()[0].age
        shop.clock.move(10)
        await shop.look()
        await shop.judged()
        stats = shop.guard.stats()
        assert (stats.calls, stats.ran, stats.memo) == (2, 1, 1)
        assert shop.guard.entries()[0].age == before + 10
        assert [event.kind for event in shop.events] == ["ran", "memo"]

    play(main)


def test_what_a_second_run_calls_runs_and_is_nobodys_call_either():
    async def main():
        guard, inner_runs, outer_runs = Guard(check=1), [], []

        async def inner():
            inner_runs.append(1)
            return len(inner_runs) // 3

        inner = wrap(Read("a")(inner), guard)

        async def outer():
            outer_runs.append(1)
            return await inner()

        outer = wrap(Read("a", identity="outer")(outer), guard)
        await outer()
        await outer()
        await until(lambda: guard.report().rows)
        assert (len(outer_runs), len(inner_runs)) == (2, 2), "what is compared comes from the world, not from the memo"
        assert guard.stats().tools["inner"].calls == 1

    play(main)


@BOTH
def test_a_guard_without_check_never_runs_a_hit_again(way):
    """The control: nothing of this happens unless it was asked for."""

    async def main():
        shop = Shop(way, check=None)
        for _ in range(5):
            await shop.look()
        assert shop.runs == 1 and type(shop.guard._memo) is not Checked

    play(main)


# -- a mismatch --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_mismatch_is_told_and_the_tool_is_not_remembered_any_more(way, caplog):
    async def main():
        shop = Shop(way)
        shop.answer = "secret old"
        await shop.look("1"), await shop.look("2")
        shop.clock.move(30)
        shop.answer = "secret new"
        assert await shop.look("1") == "secret old", "the caller is given what was remembered"
        row = await shop.judged()
        await until(lambda: shop.told_of_mismatch)
        assert (row.differed, row.compared) == (1, 1) and "name the resources" in row.advice
        assert len(shop.guard.entries()) == 0, "all its entries are gone"
        before = shop.runs
        assert [await shop.look("1"), await shop.look("1"), await shop.look("2")] == ["secret new"] * 3
        assert shop.runs == before + 3
        assert shop.guard.stats().uncacheable[REASON] == 3
        assert shop.guard.explain()[0].note == REASON
        told = [event for event in shop.events if event.kind == "mismatch"]
        assert [(event.tool, event.age) for event in told] == [("look", 30.0)]

    with caplog.at_level(logging.WARNING, "ibidem"):
        play(main)
    assert len(caplog.records) == 1 and "look" in caplog.text and "not remembered any more" in caplog.text
    assert "secret" not in caplog.text, "what tools answer does not belong in a log"


def test_another_tool_of_the_guard_stays_remembered():
    async def main():
        shop = Shop()
        runs = []
        other = wrap(Read("b", identity="other")(lambda: runs.append(1)), shop.guard)
        other()
        await shop.look()
        shop.answer = "new"
        await shop.look()
        await until(lambda: shop.told_of_mismatch)
        other()
        assert runs == [1] and [row.tool for row in shop.guard.entries()] == ["<lambda>"]

    play(main)


def test_a_read_under_way_when_the_tool_is_distrusted_is_not_kept():
    async def main():
        shop, let = Shop(), asyncio.Event()
        await shop.look("1")

        async def held():
            await let.wait()
            return "new"

        shop.answer = held
        task = asyncio.create_task(shop.look("2"))
        await until(lambda: shop.runs == 2)
        shop.answer = "new"
        await shop.look("1")
        await until(lambda: shop.told_of_mismatch)
        let.set()
        assert await task == "new"
        assert len(shop.guard.entries()) == 0

    play(main)


# -- what tells nothing ------------------------------------------------------------------------------------------------


def unclear(answer):
    async def main():
        shop = Shop()
        await shop.look()

        async def changed():
            return answer(shop)

        shop.answer = changed
        await shop.look()
        row = await shop.judged()
        assert (row.unclear, row.compared, row.failed) == (1, 0, 0)
        assert not shop.guard.trials.distrusted

    play(main)


def test_a_change_meanwhile_explains_a_difference():
    unclear(lambda shop: shop.guard.touch("order:1") or "new")


def test_a_change_that_is_still_under_way_explains_a_difference():
    async def main():
        shop, let = Shop(), asyncio.Event()

        async def change():
            await let.wait()

        write = wrap(Write("order:1")(change), shop.guard)
        await shop.look()
        shop.answer = "new"
        await shop.look()
        task = asyncio.create_task(write())
        row = await shop.judged()
        let.set()
        await task
        assert (row.unclear, row.differed) == (1, 0)

    play(main)


def test_an_undeclared_call_meanwhile_explains_a_difference():
    unclear(lambda shop: wrap(lambda: None, shop.guard)() or "new")


def test_a_purge_meanwhile_tells_nothing():
    unclear(lambda shop: shop.guard.forget() and "new")


def test_a_second_run_that_fails_tells_nothing():
    unclear(lambda shop: 1 / 0)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_second_run_that_would_end_the_program_does_not(kind):
    def answer(shop):
        raise kind

    unclear(answer)


def test_control_a_difference_that_nothing_explains_is_a_mismatch():
    with pytest.raises(AssertionError):
        unclear(lambda shop: "new")


def test_a_cancelled_second_run_tells_nothing_and_ends_quietly(caplog):
    until_blocking(lambda: not POOL._queue and not POOL._running)  # the last words of earlier tests
    caplog.clear()

    async def main():
        shop = Shop()
        await shop.look()

        async def held():
            await asyncio.get_running_loop().create_future()

        shop.answer = held
        await shop.look()
        await until(lambda: shop.runs == 2)
        return shop

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shop = run_shuffled(main(), 0)  # the loop cancels what is left when it closes
        (row,) = shop.guard.report()
        assert (row.unclear, row.compared) == (1, 0)
        gc.collect()
    said = [record.getMessage() for record in caplog.records]
    assert not [text for text in said if "look" in text or "Task" in text], said


def test_a_loop_that_closes_under_a_second_run_is_quiet_and_later_hits_are_checked(caplog):
    async def begin(shop):
        await shop.look()
        shop.answer = lambda: asyncio.get_running_loop().create_future()
        await shop.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    shop = Shop()
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin(shop))
        loop.close()
        shop.guard.forget()
        shop.answer = "old"

    async def main():
        await shop.look()
        await shop.look()
        assert (await shop.judged()).compared == 1

    asyncio.run(main())
    del loop
    gc.collect()
    assert caplog.text == ""


def test_a_result_that_reports_an_error_tells_nothing():
    async def main():
        shop = Shop(effect=Read("a", identity="look", is_error=lambda value: value == "busy"))
        await shop.look()
        shop.answer = "busy"
        await shop.look()
        assert (await shop.judged()).unclear == 1
        assert await shop.look() == "old" and not shop.guard.trials.distrusted

    play(main)


def test_a_store_that_fails_to_forget_keeps_nobody_from_being_told(caplog):
    async def main():
        shop = Shop()
        await shop.look()
        shop.answer, shop.guard.store.forget = "new", lambda unwanted: 1 / 0
        await shop.look()
        assert (await shop.judged()).differed == 1
        await until(lambda: shop.told_of_mismatch)
        assert await shop.look() == "new"
        assert [event.kind for event in shop.events] == ["ran", "memo", "mismatch", "ran"]

    play(main)
    gc.collect()
    assert "could not all be dropped" in caplog.text and "never retrieved" not in caplog.text


def crowded(**options):
    """Worlds in which every change passes the guard: nothing may be found wrong that is not."""

    def make(world):
        world.crowded = True
        return Guarded(world, Guard(**options))

    return make


@pytest.mark.soak
def test_r22_no_second_run_is_held_against_a_tool_whose_changes_the_guard_knows():
    compared = 0
    for seed in range(SEEDS):
        world = worlds.play(seed, crowded(check=1))
        assert world.wrong == [] and not world.tools.guard.trials.distrusted, f"seed {seed}"
        compared += sum(row.compared for row in world.tools.guard.report())
    assert compared > SEEDS / 2, "too little was compared to show anything"


def test_r22_control_without_a_look_at_the_stamps_second_runs_are_held_against_tools(monkeypatch):
    monkeypatch.setattr(Answer, "verdict", lambda self, outcome: "same" if self.value == outcome.value else "differed")
    assert any(worlds.play(seed, crowded(check=1)).tools.guard.trials.distrusted for seed in range(50))


# -- which hits --------------------------------------------------------------------------------------------------------


def drawing(*numbers):
    return iter(numbers).__next__


@pytest.mark.parametrize(("number", "again"), [(0.0, True), (0.2499, True), (0.25, False), (0.99, False)])
def test_a_share_of_the_hits_is_drawn(number, again):
    lots = Lots(0.25, drawing(number))
    assert lots.take(a_key()) is again


def test_a_hit_is_drawn_once_on_its_way():
    lots = Lots(0.25, drawing(0.1, 0.9, 0.9))
    assert lots.drew(a_key())
    assert lots.drew(a_key()), "it is asked again on the way, and not drawn again"
    assert lots.take(a_key())
    assert not lots.take(a_key())
    assert not lots.drew(a_key())


def test_no_more_than_a_few_run_at_once(monkeypatch):
    monkeypatch.setattr(checked, "AT_ONCE", 2)
    lots, running = Lots(1), [True, True]
    for nth in range(2):
        assert lots.take(a_key())
        lots.began(lambda nth=nth: running[nth])
    assert not lots.take(a_key())
    running[0] = False
    assert lots.take(a_key())


def test_what_was_drawn_and_never_called_again_does_not_pile_up():
    lots = Lots(1)
    for n in range(5000):
        lots.drew(a_key(str(n)))
    assert len(lots._drawn) <= 1000


def test_each_hit_of_a_wrapped_function_is_drawn_once():
    shop = Shop("sync", check=0.5)
    shop._look()
    shop.guard._memo.lots.draw = drawing(0.9, 0.1, 0.9, 0.9)
    for _ in range(4):
        shop._look()
    until_blocking(lambda: shop.guard.report().rows)
    assert shop.runs == 2 and shop.guard.stats().memo == 4
    with pytest.raises(StopIteration):
        shop.guard._memo.lots.draw()


def test_drawing_leaves_the_numbers_of_a_seeded_program_alone():
    import random

    random.seed(7)
    before = random.getstate()
    Lots(0.5).take(a_key())
    assert random.getstate() == before


def test_a_hit_in_a_forked_child_is_checked_whatever_the_parent_had_under_way():
    lots = Lots(1)
    for _ in range(2):
        lots.began(lambda: True)
    assert not lots.take(a_key())
    lots._after_fork()
    assert lots.take(a_key())
