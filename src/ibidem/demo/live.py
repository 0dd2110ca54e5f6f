"""Claude in the place of the script, for `--live`: by langchain-anthropic where it is installed, else by the SDK."""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from anthropic import Anthropic, AnthropicError
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool

Unreachable = AnthropicError
"""What either way raises if Claude cannot be asked."""

MAX_TOKENS = 2000


def claude(name: str) -> BaseChatModel:
    """Make the chat model; its key comes from `ANTHROPIC_API_KEY`.

    Args:
        name: Which Claude.

    Returns:
        The model.
    """
    if find_spec("langchain_anthropic"):
        chat: Callable[..., BaseChatModel] = import_module("langchain_anthropic").ChatAnthropic
        return chat(model=name, max_tokens=MAX_TOKENS)
    return Claude(client=Anthropic(api_key=os.environ["ANTHROPIC_API_KEY"]), model=name)  # no other credential


class Claude(BaseChatModel):
    """The Messages API as a chat model: text and tools, no more than the demo needs."""

    client: Any
    """An `anthropic.Anthropic`."""
    model: str
    """Which Claude."""

    @property
    def _llm_type(self) -> str:
        return "anthropic"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, AIMessage]:
        """Tell Claude which tools there are."""
        described = [convert_to_openai_tool(tool)["function"] for tool in tools]
        return self.bind(
            tools=[
                {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
                for one in described
            ]
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **options: Any,
    ) -> ChatResult:
        system = "\n".join(str(message.content) for message in messages if isinstance(message, SystemMessage))
        reply = self.client.messages.create(
            model=self.model, max_tokens=MAX_TOKENS, system=system, messages=_as_blocks(messages), **options
        )
        blocks = [block.model_dump(mode="json", exclude_unset=True) for block in reply.content]
        calls = [ToolCall(name=b["name"], args=b["input"], id=b["id"]) for b in blocks if b["type"] == "tool_use"]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(blocks, tool_calls=calls))])


def _as_blocks(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Write messages as the API wants them: the results of one message of the model stand in one user message."""
    written: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, SystemMessage):
            continue
        if isinstance(message, ToolMessage):
            result: dict[str, Any] = {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": str(message.content),
            }
            if message.status == "error":
                result["is_error"] = True
            if written[-1]["role"] == "user":
                written[-1]["content"].append(result)
            else:
                written.append({"role": "user", "content": [result]})
        else:
            role = "assistant" if isinstance(message, AIMessage) else "user"
            content = (
                message.content if isinstance(message.content, list) else [{"type": "text", "text": message.content}]
            )
            written.append({"role": role, "content": content})
    return written
