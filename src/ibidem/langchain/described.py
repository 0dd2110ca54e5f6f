"""Descriptions: what a model is told of a LangChain tool by an API that LangChain does not speak to."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool


def description_of(tool: BaseTool) -> dict[str, Any]:
    """Give the name, description and JSON schema of a tool, without the arguments that nobody asks the model for."""
    function = convert_to_openai_tool(tool)["function"]
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
