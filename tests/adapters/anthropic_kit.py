"""What the tests of the Anthropic adapter share: clients of the fake server, and running the same thing both ways."""

import anthropic

ASK = {"model": "claude-test", "max_tokens": 1000, "messages": [{"role": "user", "content": "hello"}]}


def client(server):
    """The SDK's client; it does not try again by itself."""
    return anthropic.Anthropic(api_key="of the tests", base_url=server.url, max_retries=0)


def aclient(server):
    return anthropic.AsyncAnthropic(api_key="of the tests", base_url=server.url, max_retries=0)
