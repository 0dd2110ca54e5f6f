"""What the tests of the Anthropic adapter share: clients of the fake server, and running the same thing both ways."""

import os

import anthropic
from anthropic.types.beta import BetaMessage

from ibidem.testing import Reply

SOAK = bool(os.environ.get("IBIDEM_SOAK"))

ASK = {"model": "claude-test", "max_tokens": 1000, "messages": [{"role": "user", "content": "hello"}]}


def client(server):
    """The SDK's client; it does not try again by itself."""
    return anthropic.Anthropic(api_key="of the tests", base_url=server.url, max_retries=0)


def aclient(server):
    return anthropic.AsyncAnthropic(api_key="of the tests", base_url=server.url, max_retries=0)


def message(*blocks, stop_reason="tool_use"):
    """A message of the model as the SDK gives it."""
    reply = Reply(blocks, stop_reason=stop_reason).named(1)
    if not any(block["type"] == "tool_use" for block in blocks):
        stop_reason = "end_turn"
    # As the SDK reads replies: what a version does not know is kept, not refused.
    return BetaMessage.construct(
        id="msg_1", type="message", role="assistant", model="claude-test", content=reply.blocks, stop_reason=stop_reason,
        stop_sequence=None, usage={"input_tokens": 1, "output_tokens": 1},
    )  # fmt: skip
