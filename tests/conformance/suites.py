"""The frameworks' suites that are run, how each is sent through ibidem, and what may differ and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

GUARDS: Final = {"undeclared": {}, "reads": {"reads": ["*"]}, "replayed": {"reads": ["*"]}}
"""The guards: nothing declared; everything declared `Read()`; the same, and whatever is remembered is asked for again,
so that the tests see answers from the memo."""

ALL = tuple(GUARDS)
FIRST = ("undeclared", "reads")
"""Where answers are not replayed: only a node that is replaced and a tool that is wrapped can be asked twice."""

WAYS: Final = {
    "node": "ToolNode replaced by ibidem.ToolNode, every compiled graph wrapped",
    "wrapped": "every ToolNode wrapped as an instance, every compiled graph wrapped",
    "graph": "every compiled graph wrapped, nothing else",
    "tools": "every tool wrapped as it is made",
    "middleware": "ibidem.Middleware added to every agent",
}


@dataclass(frozen=True)
class Exempt:
    """A test that by nature cannot pass through a memo; if it passes, the entry is out of date and that is a failure."""

    test: str
    """Its id; without brackets it stands for all of its parameters."""
    reason: str
    says: str
    """A part of the message it must fail with, so that no other fault can hide behind the entry."""
    guards: tuple[str, ...] = ("reads", "replayed")
    ways: tuple[str, ...] = tuple(WAYS)


@dataclass(frozen=True)
class Suite:
    """Tests of one distribution, as its source distribution has them."""

    name: str
    distribution: str
    """The installed distribution; its version is what is fetched. Empty: the files are this project's own."""
    files: tuple[str, ...]
    ways: dict[str, tuple[str, ...]]
    """How it is run, and with which guards each."""
    at_least: int
    """So many tests must pass at baseline; fewer means that the suite has moved, not that all is well."""
    reached: dict[str, int]
    """So many tests must have sent a call through a guard, by way; far below what is usual, far above nothing."""
    without: dict[str, str] = field(default_factory=dict)
    """Tests that are left out, by id, and why."""
    exempt: tuple[Exempt, ...] = ()
    arguments: tuple[str, ...] = ()
    """Further ones for pytest."""
    environment: dict[str, str] = field(default_factory=dict)
    always: bool = True
    """Whether it runs without being named."""


_NODE = "an agent without tools has a node for them"
_UNKNOWN = "tools that a middleware could bring are not refused beforehand"

SUITES: Final = (
    Suite(
        name="prebuilt",
        distribution="langgraph-prebuilt",
        files=("tests",),
        ways={"node": ALL, "wrapped": FIRST, "graph": FIRST, "tools": ALL},
        at_least=200,
        reached={"node": 100, "wrapped": 100, "graph": 20, "tools": 100},
        exempt=(
            Exempt(
                test="tests/test_react_agent.py::test_react_agent_parallel_tool_calls[memory-v1]",
                reason="it counts that a resumed node makes the call that had ended again: declared, it is not made again",
                says="assert 1 == 2",
                ways=("node", "wrapped", "graph"),
            ),
        ),
    ),
    Suite(
        name="core",
        distribution="langchain-core",
        files=(
            "tests/unit_tests/test_tools*.py",
            "tests/unit_tests/utils/test_function_calling.py",
            "tests/unit_tests/messages/test_utils.py",
            "tests/unit_tests/runnables/test_runnable_events_v*.py",
        ),
        ways={"tools": ALL},
        at_least=300,
        reached={"tools": 60},
        exempt=(
            Exempt(
                test="tests/unit_tests/test_tools.py::test_create_retriever_tool",
                reason="it makes one call twice and compares the whole message: the second says in response_metadata that it is a memo's",
                # The two are printed alike: what is not printed, response_metadata, is all that differs.
                says="{0} == {0}".format(
                    "ToolMessage(content='foo bar\\n\\nbar', name='retriever_tool_content', tool_call_id='123')"
                ),
                guards=("reads",),
            ),
        ),
    ),
    Suite(
        name="graphs",
        distribution="langgraph",
        files=(
            "tests/test_large_cases*.py",
            "tests/test_tool_stream_handler.py",
            "tests/test_stream_namespaces.py",
            "tests/test_subgraph_persistence*.py",
            "tests/test_interruption.py",
            "tests/test_strict_resume.py",
            "tests/test_parent_command*.py",
        ),
        ways={"node": ALL, "graph": FIRST},
        at_least=200,
        reached={"node": 10, "graph": 10},
        environment={"NO_DOCKER": "true"},  # upstream's own switch for: no postgres, no redis
    ),
    Suite(
        name="agents",
        distribution="langchain",
        files=(
            "tests/unit_tests/agents/middleware/core/test_*.py",
            "tests/unit_tests/agents/middleware/implementations/test_*.py",
            "tests/unit_tests/agents/test_*.py",
        ),
        ways={"middleware": FIRST},
        at_least=1000,
        reached={"middleware": 150},
        exempt=tuple(
            Exempt(
                test=f"tests/unit_tests/agents/middleware/core/{test}",
                reason="so with any middleware that has wrap_tool_call, one that only hands on too: " + why,
                says=says,
                guards=ALL,
            )
            for test, why, says in (
                ("test_decorators.py::test_async_middleware_with_can_jump_to_graph_snapshot", _NODE, "tools(tools)"),
                ("test_diagram.py::test_create_agent_diagram", _NODE, "tools(tools)"),
                ("test_framework.py::test_jump_to_is_ephemeral", _NODE, "'jump_to' not in"),
                ("test_dynamic_tools.py::test_dynamic_tool_without_handler_raises_error", _UNKNOWN, "DID NOT RAISE"),
                ("test_tools.py::test_unknown_tool_raises_error", _UNKNOWN, "DID NOT RAISE"),
            )
        ),
    ),
    Suite(
        name="pregel",
        distribution="langgraph",
        files=("tests/test_pregel.py", "tests/test_pregel_async.py"),
        ways={"node": ALL},
        at_least=600,
        reached={"node": 3},
        environment={"NO_DOCKER": "true"},
        always=False,  # two minutes a run, nearly all of it graphs without a tool
    ),
    Suite(
        name="standard",
        distribution="",
        files=("tests/conformance/test_standard.py",),
        ways={"tools": ALL},
        at_least=40,
        reached={"tools": 10},
        # The project's own options leave this folder out; the tests are anyio's, and pytest-asyncio warns at start.
        arguments=("-o", "addopts=", "-p", "no:asyncio"),
        environment={"IBIDEM_CONFORMANCE": "bare"},  # the plugin wraps, so that the baseline is without
    ),
)
