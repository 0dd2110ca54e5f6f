"""The agent: six tools over HTTP, a LangGraph graph built by hand, and the one line that puts ibidem in."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import ibidem
from ibidem import Read, Store, Write

Agent: TypeAlias = CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]

SYSTEM = (
    "You are the support agent of a small shop. Look things up with the tools before you answer, several at once where"
    " you can. Check an order before you cancel it, and look it up again afterwards. Answer in two sentences at most."
)

HTTP = httpx.Client(trust_env=False, timeout=10)  # no proxy stands between the agent and the loopback


def ask(method: str, url: str, *path: str, **query: str) -> Any:
    """Send one request to the shop.

    Args:
        method: The HTTP method.
        url: The address of the shop.
        *path: Segments of the path.
        **query: Parameters of the query string.

    Returns:
        The JSON value that the shop answered.

    Raises:
        ToolException: The shop answered with an error.
    """
    response = HTTP.request(method, "/".join([url, *(quote(part, safe="") for part in path)]), params=query)
    if response.is_error:
        raise ToolException(response.json()["error"])
    return response.json()


def tools(url: str) -> list[BaseTool]:
    """Make the agent's tools.

    Args:
        url: The address of the shop.

    Returns:
        Five reads and a write.
    """

    @tool
    def get_customer(customer_id: str) -> Any:
        """Look up the name, e-mail and address of a customer, such as C-7."""
        return ask("GET", url, "customers", customer_id)

    @tool
    def list_orders(customer_id: str) -> Any:
        """List the orders of a customer with their status."""
        return ask("GET", url, "customers", customer_id, "orders")

    @tool
    def get_order(order_id: str) -> Any:
        """Look up an order, such as O-1001."""
        return ask("GET", url, "orders", order_id)

    @tool
    def get_product(product_id: str) -> Any:
        """Look up the price and stock of a product, such as P-20."""
        return ask("GET", url, "products", product_id)

    @tool
    def search_products(text: str) -> Any:
        """Search for products by a part of their name."""
        return ask("GET", url, "products", q=text)

    @tool
    def cancel_order(order_id: str) -> Any:
        """Cancel an order that has not been shipped; its items go back in stock."""
        return ask("POST", url, "orders", order_id, "cancel")

    return [get_customer, list_orders, get_order, get_product, search_products, cancel_order]


def build(model: BaseChatModel, tools: Sequence[BaseTool], saver: BaseCheckpointSaver[Any]) -> Agent:
    """Build the agent by hand, as anybody would who has never heard of ibidem.

    Args:
        model: Who decides what to call.
        tools: What can be called.
        saver: Where the conversation is kept between two turns.

    Returns:
        The compiled graph.
    """
    deciding: Runnable[Any, Any] = model.bind_tools(tools)

    def decide(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [deciding.invoke([SystemMessage(SYSTEM), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("decide", decide)
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=True))
    graph.add_edge(START, "decide")
    graph.add_conditional_edges("decide", tools_condition)
    graph.add_edge("tools", "decide")
    return graph.compile(saver)


def with_ibidem(graph: Agent, store: Store | Path | None = None) -> Agent:
    """Do the one line, with what each tool reads and writes.

    Args:
        graph: The agent.
        store: Where results are remembered, as `Guard` takes it.

    Returns:
        The agent, with ibidem between its model and its tools.
    """
    return ibidem.wrap(
        graph,
        store=store,
        effects={
            "get_customer": Read("customer:{customer_id}"),
            "list_orders": Read("order:*"),  # it shows their status
            "get_order": Read("order:{order_id}"),
            "get_product": Read("product:{product_id}"),
            "search_products": Read("product:*"),
            "cancel_order": Write("order:{order_id}", "product:*"),  # the items go back in stock, whichever they are
        },
    )


def converse(graph: Agent, asks: Iterable[str], thread: str) -> list[AnyMessage]:
    """Hold a conversation on one thread.

    Args:
        graph: The agent.
        asks: What the customer says, turn by turn.
        thread: The id of the conversation.

    Returns:
        The whole transcript.
    """
    messages: list[AnyMessage] = []
    for text in asks:
        state = graph.invoke({"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": thread}})
        messages = state["messages"]
    return messages
