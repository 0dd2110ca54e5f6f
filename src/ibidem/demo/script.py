"""A conversation that is always the same, and the chat model that holds up its end of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation: what is asked, what the model calls, what it answers."""

    asks: str
    """What the customer says."""
    calls: Sequence[Sequence[tuple[str, str]]]
    """Messages of the model, each one or several calls at once: a tool and its only argument."""
    answers: str
    """What the model says then; `{name}` is a field of the last thing it read."""


SCRIPT = (
    Turn(
        "Hello, Ann Li here, customer C-7. How are my orders doing?",
        [
            [("get_customer", "C-7"), ("list_orders", "C-7")],
            [("get_order", f"O-100{n}") for n in (1, 2, 3)]
            + [("get_product", "P-30"), ("get_product", "P-20"), ("get_product", "P-20")],  # one look-up per order
        ],
        "Your kettle is on its way. Both orders of desk lamps are still being processed.",
    ),
    Turn(
        "Do you have other lamps, and is mine still in stock?",
        [[("search_products", "lamp"), ("get_product", "P-20")]],
        "Of your {name} there are {stock} left. The oak floor lamp is sold out.",
    ),
    Turn(
        "Which address do the two lamp orders go to?",
        [[("get_order", "O-1002"), ("get_customer", "C-7"), ("get_order", "O-1003"), ("get_customer", "C-7")]],
        "Both go to {address}.",
    ),
    Turn(
        "Then please cancel O-1002. Yes, I am sure.",
        [
            [("get_customer", "C-7"), ("get_order", "O-1002")],
            [("cancel_order", "O-1002")],
            [("get_order", "O-1002")],
        ],
        "Done: {id} is {status}.",
    ),
    Turn(
        "Thank you. What is still coming, and is the lamp back in stock?",
        [
            [("list_orders", "C-7"), ("get_customer", "C-7")],
            [("get_order", f"O-100{n}") for n in (1, 2, 3)] + [("get_product", "P-20"), ("get_product", "P-20")],
        ],
        "The kettle (O-1001) and two lamps (O-1003). There are {stock} lamps in stock now.",
    ),
)
"""What is said and called. A support agent looks the same things up again and again: it does not remember, it looks."""

LATER = (
    Turn(
        "Ann Li again, customer C-7. What was still coming? And is O-1002 really cancelled?",
        [
            [("get_customer", "C-7"), ("list_orders", "C-7")],
            [("get_product", "P-20")] + [("get_order", f"O-100{n}") for n in (1, 3, 2)],
        ],
        "The kettle and two lamps. Yes, {id} is {status}.",
    ),
)
"""What the same customer asks in the same conversation, when another process answers it."""

ARGUMENT = {"search_products": "text", "get_product": "product_id", "get_order": "order_id", "cancel_order": "order_id"}
"""The only argument of each tool; of all others it is `customer_id`."""


class Scripted(BaseChatModel):
    """A chat model that follows `SCRIPT` and then `LATER`. It keeps no state: the messages tell it how far it is."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, AIMessage]:  # noqa: ARG002
        """Take the tools, which the script knows already."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **_: Any,
    ) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        reply: AIMessage
        match [part for turn in (*SCRIPT, *LATER) for part in (*turn.calls, turn.answers)][said]:
            case str(template):
                reply = AIMessage(template.format_map(_fields(messages[-1])))
            case calls:
                reply = AIMessage("", tool_calls=[_tool_call(said, n, *call) for n, call in enumerate(calls)])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def decider(claude: str | None) -> BaseChatModel:
    """Give who decides what to call.

    Args:
        claude: Which Claude; None for the script.

    Returns:
        The model.
    """
    if claude is None:
        return Scripted()
    from ibidem.demo import live  # the script needs no client of an API

    return live.claude(claude)


def _fields(read: BaseMessage) -> dict[str, Any]:
    found = json.loads(str(read.content)) if isinstance(read, ToolMessage) else None
    return found if isinstance(found, dict) else {}


def _tool_call(said: int, n: int, name: str, value: str) -> ToolCall:
    return ToolCall(name=name, args={ARGUMENT.get(name, "customer_id"): value}, id=f"call_{said}_{n}")
