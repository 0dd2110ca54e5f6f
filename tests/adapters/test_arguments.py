"""What a tool is given is what its key was made of, however long the call has waited."""

import asyncio
import contextlib

from langchain_core.tools import StructuredTool

import ibidem
from ibidem import Guard, Read


def test_arguments_changed_while_a_call_waits_do_not_reach_the_tool():
    async def main():
        seen, began, let = [], asyncio.Event(), asyncio.Event()

        async def fetch(ids):
            seen.append(list(ids))
            began.set()
            await let.wait()
            return "done"

        guard = Guard(effects={"fetch": Read(identity="fetch")})
        schema = {"type": "object", "properties": {"ids": {"type": "array"}}}
        tool = StructuredTool(name="fetch", description="d", args_schema=schema, coroutine=fetch)
        wrapped = ibidem.wrap(tool, guard)
        first = asyncio.create_task(wrapped.ainvoke({"ids": [1]}))
        await began.wait()
        mine = {"ids": [1]}
        second = asyncio.create_task(wrapped.ainvoke(mine))
        while not any(flight.waiters for flight in list(guard._memo.flights._flights.values())):
            await asyncio.sleep(0)
        mine["ids"].append(2)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        let.set()
        assert await second == "done"
        assert seen == [[1], [1]]

    asyncio.run(asyncio.wait_for(main(), 30))
