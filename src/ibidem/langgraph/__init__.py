"""The adapter for LangGraph: `ToolNode` and compiled graphs."""

from ibidem.langgraph.node import ToolNode
from ibidem.langgraph.walk import adapt

__all__ = ["ToolNode", "adapt"]
