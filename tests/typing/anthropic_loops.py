"""What type checkers see of Anthropic loops. Checked by mypy and pyright; never run."""

from typing import Any, assert_type

from anthropic import Anthropic, AsyncAnthropic, beta_tool
from anthropic.lib.tools import BetaToolRunner

import ibidem
from ibidem import Guard
from ibidem.anthropic import AsyncStream, Stream, aanswer, answer, runner, stream


@beta_tool
def get(key: str) -> str:
    return key


async def check(client: Anthropic, aclient: AsyncAnthropic, guard: Guard, made: BetaToolRunner[None]) -> None:
    assert_type(stream(client, guard), Stream)
    assert_type(stream(client.beta, guard.bind(conversation="1")), Stream)
    assert_type(stream(aclient, guard), AsyncStream)
    assert_type(answer({}, [get], guard), dict[str, Any] | None)
    assert_type(await aanswer({}, {"get": get}, guard), dict[str, Any] | None)
    assert_type(runner(made, guard), BetaToolRunner[None])
    assert_type(ibidem.wrap(made, guard), BetaToolRunner[None])
