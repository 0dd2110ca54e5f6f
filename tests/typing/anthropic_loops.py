"""What type checkers see of Anthropic loops. Checked by mypy and pyright; never run."""

from typing import Any, assert_type

from anthropic import Anthropic, AsyncAnthropic, beta_tool
from anthropic.lib.tools import BetaToolRunner
from anthropic.types import MessageParam
from anthropic.types.beta import BetaMessageParam

import ibidem
from ibidem import Guard
from ibidem.anthropic import AsyncStream, Stream, aanswer, answer, runner, stream, tools_for


@beta_tool
def get(key: str) -> str:
    return key


async def check(client: Anthropic, aclient: AsyncAnthropic, guard: Guard, made: BetaToolRunner[None]) -> None:
    assert_type(stream(client, guard), Stream)
    assert_type(stream(client.beta, guard.bind(conversation="1")), Stream)
    assert_type(stream(aclient, guard), AsyncStream)
    assert_type(answer({}, [get], guard), Any | None)
    assert_type(await aanswer({}, {"get": get}, guard), Any | None)
    assert_type(runner(made, guard), BetaToolRunner[None])
    assert_type(ibidem.wrap(made, guard), BetaToolRunner[None])


def loop(client: Anthropic, guard: Guard, messages: list[MessageParam]) -> None:
    reply = client.messages.create(model="claude", max_tokens=10, messages=messages, tools=tools_for([get]))
    results = answer(reply, [get], guard)
    if results is not None:
        messages += [{"role": "assistant", "content": reply.content}, results]


async def beta_loop(client: AsyncAnthropic, guard: Guard, messages: list[BetaMessageParam]) -> None:
    reply = await client.beta.messages.create(model="claude", max_tokens=10, messages=messages, tools=tools_for([get]))
    results = await aanswer(reply, [get], guard)
    if results is not None:
        messages.append(results)
