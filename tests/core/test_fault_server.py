"""Against a server that fails: no write runs twice, and what may be retried recovers. R29, R30."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ibidem import Breaker, Guard, Read, Retry, Write, wrap
from ibidem.testing import FaultServer
from ibidem.testing.faulty import FAULTS, UNDONE

httpx = pytest.importorskip("httpx")
requests = pytest.importorskip("requests")

SOAK = bool(os.environ.get("IBIDEM_SOAK"))
CALLS = 1_000 if SOAK else 150
FAILING = [fault for fault in FAULTS if fault != "fine"]
PASSING = [fault for fault in FAILING if fault != "404"]
RETRY = Retry(max_retries=2, first_delay="1ms", attempt_timeout=0.5, budget=1.0)


@pytest.fixture
def server():
    with FaultServer(slow=3) as made:
        yield made


def client():
    return httpx.Client(timeout=httpx.Timeout(20), limits=httpx.Limits(max_connections=100))


def paying(server, http):
    def pay(call: str, key: str = "") -> bool:
        reply = http.post(f"{server.url}/pay", params={"id": call}, headers={"Idempotency-Key": key} if key else None)
        return reply.raise_for_status().json()["done"]

    return pay


def many(call, count=CALLS):
    """Make many calls, eight at a time, and give their outcomes: a burst of more than ten retries is more than a budget gives."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(call, range(count)))


@pytest.mark.soak
def test_a_write_that_is_not_idempotent_is_never_executed_twice_r29(server):
    """Whatever the server does, and whatever the guard says of retries."""
    server.fail_always(29, FAULTS)
    with client() as http:
        guard = Guard(effects={"pay": Write("account", settle=0.01, timeout=0.5)}, retry=RETRY)
        outcomes = many(lambda n: guard.run(paying(server, http), f"{n}"))
    assert max(server.executed.values()) == 1 and server.requests == CALLS
    done = {int(call) for call, count in server.executed.items() if count}
    for number, outcome in enumerate(outcomes):
        if not outcome.failed:
            assert number in done
        elif number in done:
            assert outcome.fault.kind == "maybe_executed", "nobody is told that nothing happened where it did"
            assert not outcome.fault.retryable


@pytest.mark.soak
@pytest.mark.parametrize("how", ["Read", "idempotent", "idempotency key"])
def test_what_may_run_twice_recovers_wherever_it_may_r29(server, how):
    server.fail_first(30, PASSING)
    effect = {
        "Read": Read(ttl=None),
        "idempotent": Write("account", idempotent=True),
        "idempotency key": Write("account", idempotency_key="key"),
    }[how]
    with client() as http:
        guard = Guard(effects={"pay": effect}, retry=RETRY)
        outcomes = many(lambda n: guard.run(paying(server, http), f"{n}"))
    assert [outcome.fault for outcome in outcomes if outcome.failed] == []
    assert guard.stats().total.retried == CALLS and server.requests == 2 * CALLS
    if how == "idempotency key":
        assert set(server.executed.values()) == {1}, "the other side knows each call again"


def test_without_a_guard_the_same_retries_execute_twice(server):
    """The negative control: what a retry that knows no effects does."""
    server.fail_first(29, PASSING)
    with client() as http:
        pay = wrap(paying(server, http), Guard(effects={"pay": Write(idempotent=True, retry=RETRY)}))
        many(lambda n: pay(f"{n}"), 100)
    assert max(server.executed.values()) == 2


@pytest.mark.parametrize("library", ["httpx", "requests", "httpx async"])
@pytest.mark.parametrize("fault", FAILING)
def test_each_fault_is_what_it_is_with_each_client(server, fault, library):
    kinds = {
        "429": "rate_limited",
        "429 date": "rate_limited",
        "503 before": "unavailable",
        "503 after": "unavailable",
        "500 after": "unavailable",
        "404": "not_found",
        "slow headers": "timeout",
        "slow body": "timeout",
    }
    server.script(fault)
    if library == "requests":

        def tool():
            requests.get(f"{server.url}/x?id=1", timeout=0.2).raise_for_status()

        outcome = Guard(live=["tool"]).run(tool)
    elif library == "httpx":

        def tool():
            httpx.get(f"{server.url}/x?id=1", timeout=0.2).raise_for_status()

        outcome = Guard(live=["tool"]).run(tool)
    else:

        async def tool():
            async with httpx.AsyncClient(timeout=0.2) as http:
                (await http.get(f"{server.url}/x?id=1")).raise_for_status()

        outcome = asyncio.run(Guard(live=["tool"]).arun(tool))
    kind = kinds.get(fault, "unreachable")
    assert outcome.fault.kind == kind, outcome.fault
    assert outcome.fault.may_have_run, "it did leave"
    assert server.executed["1"] == (fault not in UNDONE)


def test_what_the_other_side_asks_to_wait_is_waited_for_r30(server):
    server.retry_after = 1
    server.script("429", "429 date")
    guard = Guard(live=["get"], retry=Retry(first_delay="1ms"))
    with client() as http:

        def get():
            return http.get(f"{server.url}/x").raise_for_status().json()

        outcome = guard.run(get)
    assert outcome.value == {"done": True} and outcome.attempts == 3


def test_a_dead_dependency_is_left_alone_r30(server):
    """With a breaker and a budget, what reaches it is a few calls and not three times all of them."""
    server.fail_always(1, ["503 before"])
    guard = Guard(live=["get"], retry=Retry(first_delay="1ms"), breaker=Breaker(failures=5))
    with client() as http:

        def get():
            return http.get(f"{server.url}/x").raise_for_status()

        kinds = [guard.run(get).fault.kind for _ in range(100)]
    assert server.requests == 5
    assert kinds.count("circuit_open") >= 98


def test_load_in_an_outage_without_a_breaker_stays_within_the_budget_r30(server):
    server.fail_always(1, ["503 before"])
    guard = Guard(live=["get"], retry=Retry(first_delay="1ms"))
    with client() as http:

        def get():
            return http.get(f"{server.url}/x").raise_for_status()

        for _ in range(200):
            guard.run(get)
    assert 200 < server.requests <= 200 * 1.3


def test_an_unknown_fault_of_the_server_is_refused(server):
    with pytest.raises(ValueError, match="no fault of this server"):
        server.script("explode")
