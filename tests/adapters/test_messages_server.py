"""The fake Messages API: the real SDK reads what it says, and it refuses what the real API refuses."""

import asyncio

import anthropic
import pytest
from anthropic_kit import ASK, aclient, client
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

from ibidem.demo.live import Claude
from ibidem.testing import MessagesServer, Reply, broken_rules, server_use, text, use

USES = Reply([text("Let me look."), use("get", {"key": "é" * 30, "n": 1}), use("list", {})])


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def result(call, content="ok", **more):
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


def shown(message):
    return [block.model_dump(exclude_none=True) for block in message.content]


@pytest.mark.parametrize("wire", [None, 1, 7, 64])
def test_a_stream_says_what_a_message_says_however_the_network_breaks_it(wire):
    with MessagesServer(USES, wire=wire) as server, client(server) as ours:
        with ours.messages.stream(**ASK) as stream:
            streamed = stream.get_final_message()
    with MessagesServer(USES) as server, client(server) as ours:
        whole = ours.messages.create(**ASK)
    assert shown(streamed) == shown(whole)
    assert (streamed.stop_reason, whole.stop_reason) == ("tool_use", "tool_use")
    assert whole.content[1].input == {"key": "é" * 30, "n": 1}


def test_the_nth_request_gets_the_nth_turn_and_a_turn_may_be_a_function():
    def echo(body):
        return [text(body["messages"][-1]["content"])]

    with MessagesServer([text("one")], echo) as server, client(server) as ours:
        said = [ours.messages.create(**ASK).content[0].text for _ in range(3)]
    assert said == ["one", "hello", "hello"]


def test_an_asynchronous_client_streams_too():
    async def main(server):
        async with aclient(server) as ours, ours.messages.stream(**ASK) as stream:
            return await stream.get_final_message()

    with MessagesServer(USES, wire=5) as server:
        assert shown(asyncio.run(main(server)))[2]["name"] == "list"


@pytest.mark.parametrize("cut", [0, 5, 12, 13, 30, 80])
def test_a_message_that_is_cut_off_closes_its_last_block_and_says_max_tokens(cut):
    with MessagesServer(Reply(USES.blocks, cut=cut)) as server, client(server) as ours:
        with ours.messages.stream(**ASK) as stream:
            message = stream.get_final_message()
        whole = ours.messages.create(**ASK)
    assert message.stop_reason == whole.stop_reason == "max_tokens"
    assert [block.type for block in message.content] == [block.type for block in whole.content]


def test_an_error_in_the_middle_of_a_stream_is_raised():
    with MessagesServer(Reply(USES.blocks, cut=20, end="error")) as server, client(server) as ours:
        with ours.messages.stream(**ASK) as stream, pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            stream.until_done()


def test_pause_turn_server_tools_and_statuses_are_played():
    turns = Reply(server_use("web_search", {"query": "x"}), stop_reason="pause_turn"), Reply([], status=529)
    with MessagesServer(*turns) as server, client(server) as ours:
        message = ours.messages.create(**ASK)
        with pytest.raises(anthropic.APIStatusError) as raised:
            ours.messages.create(**ASK)
    assert (message.stop_reason, message.content[0].type) == ("pause_turn", "server_tool_use")
    assert raised.value.status_code == 529


@pytest.mark.parametrize(
    ("broken", "messages"),
    [
        ("has no tool_result", [user(), assistant(use("get", id="a")), user(text("no"))]),
        ("has no tool_result", [user(), assistant(use("get", id="a"), use("get", id="b")), user(result("a"))]),
        ("has no tool_result", [user(), assistant(use("get", id="a"))]),
        ("is answered twice", [user(), assistant(use("get", id="a")), user(result("a"), result("a"))]),
        ("answers no tool_use", [user(), assistant(use("get", id="a")), user(result("a")), user(result("a"))]),
        ("do not come first", [user(), assistant(use("get", id="a")), user(text("so"), result("a"))]),
        ("of role assistant", [user(), assistant(use("get", id="a")), assistant(result("a"))]),
        ("text only", [assistant(use("get", id="a")), user(result("a", [{"type": "image"}], is_error=True))]),
        ("is empty", [assistant(use("get", id="a")), user(result("a", "", is_error=True))]),
        ("neither text nor", [assistant(use("get", id="a")), user(result("a", {"no": "block"}))]),
    ],
)
def test_what_the_api_refuses_is_refused(broken, messages):
    assert any(broken in each for each in broken_rules(messages))
    with MessagesServer([text("fine")]) as server, client(server) as ours:
        with pytest.raises(anthropic.BadRequestError, match=broken):
            ours.messages.create(**{**ASK, "messages": messages})
    assert any(broken in each for each in server.violations)


def test_what_the_api_takes_is_taken():
    calls = assistant(text("so"), use("get", id="a"), use("get", id="b"))
    assert broken_rules([user(text("x")), calls, user(result("a"), result("b"), text("and"))]) == []


def test_a_reply_that_breaks_off_says_where():
    with pytest.raises(ValueError, match="needs cut="):
        Reply([text("x")], end="drop")


def test_the_demos_own_way_to_claude_keeps_the_rules_of_the_api():
    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    turns = Reply([text("so"), use("get", {"key": "a"}), use("get", {"key": "b"})]), [text("done")]
    with MessagesServer(*turns) as server, client(server) as ours:
        claude = Claude(client=ours, model="claude-test").bind_tools([get])
        asked = [SystemMessage("Be brief."), HumanMessage("go")]
        said = claude.invoke(asked)
        answers = [get.invoke(call) for call in said.tool_calls]
        assert claude.invoke([*asked, said, *answers]).text == "done"
    assert server.violations == [] and [block["content"] for block in server.results] == ["a", "b"]
