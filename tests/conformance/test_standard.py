"""The standard tests of langchain-tests, on a wrapped tool of each kind.

`make test` runs them through `Guard(reads=["*"])`, the guard that does most. `run.py` leaves the tools bare
(IBIDEM_CONFORMANCE=bare) and wraps them from outside, so that it can compare.
"""

import os
import types
from typing import Any, Literal

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool
from pydantic import BaseModel, Field

import ibidem

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Sum(BaseModel):
    """Add two numbers."""

    a: int = Field(description="the first number")
    b: int = Field(default=1, description="the second number")


class Adder(BaseTool):
    name: str = "add"
    description: str = "Add two numbers."
    args_schema: type[BaseModel] = Sum
    offset: int = 0

    def _run(self, a: int, b: int) -> int:
        return a + b + self.offset


class AsyncAdder(Adder):
    async def _arun(self, a: int, b: int) -> int:
        return a + b + self.offset


class ArtifactAdder(Adder):
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    def _run(self, a: int, b: int) -> tuple[str, dict[str, int]]:
        return str(a + b), {"a": a, "b": b}


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


async def add_later(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def add_with_artifact(a: int, b: int = 1) -> tuple[str, dict[str, int]]:
    """Add two numbers."""
    return str(a + b), {"a": a, "b": b}


async def add_with_artifact_later(a: int, b: int = 1) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Add two numbers."""
    return [{"type": "text", "text": str(a + b)}], {"a": a, "b": b}


KINDS = {
    "Sync": lambda: tool(add),
    "SyncAndAsync": lambda: StructuredTool.from_function(add, add_later, args_schema=Sum),
    "Async": lambda: tool(add_later),
    "DictSchema": lambda: StructuredTool.from_function(add, description="Add.", args_schema=Sum.model_json_schema()),
    "Subclass": lambda: Adder(offset=1),
    "SubclassAsync": lambda: AsyncAdder(offset=2),
    "SubclassArtifact": lambda: ArtifactAdder(),
    "Artifact": lambda: tool(add_with_artifact, response_format="content_and_artifact"),
    "AsyncArtifact": lambda: tool(add_with_artifact_later, response_format="content_and_artifact"),
}


def wrapped(made: BaseTool) -> BaseTool:
    bare = os.environ.get("IBIDEM_CONFORMANCE") == "bare"
    return made if bare else ibidem.wrap(made, reads=["*"], errors="raise")


def standard(name: str, base: type) -> type:
    """Make the class of the standard tests *base* for one kind of tool."""
    members: dict[str, Any] = {
        "__module__": __name__,
        "tool_constructor": property(lambda self: wrapped(KINDS[name]())),
        "tool_invoke_params_example": property(lambda self: {"a": 2, "b": 3}),
    }
    if name.startswith("Async") and base is ToolsIntegrationTests:
        refuses = pytest.mark.xfail(
            raises=NotImplementedError, reason="a tool with a coroutine alone has no synchronous way"
        )
        for each in ("test_invoke_matches_output_schema", "test_invoke_no_tool_call"):
            members[each] = refuses(copied(getattr(base, each)))
    return type(base.__name__, (base,), members)


def copied(test: Any) -> Any:
    """Copy a test, so that a mark does not stay on the original."""
    return types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)


for each in KINDS:
    globals()[f"Test{each}Unit"] = standard(each, ToolsUnitTests)
    globals()[f"Test{each}Integration"] = standard(each, ToolsIntegrationTests)
