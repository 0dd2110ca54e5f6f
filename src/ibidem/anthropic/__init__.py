"""The adapter for the Anthropic SDK: tool loops written by hand, the SDK's runner, and answers that still stream."""

from ibidem.anthropic.answering import aanswer, answer
from ibidem.anthropic.plans import aplan_tool, plan_tool
from ibidem.anthropic.runner import adapt, runner
from ibidem.anthropic.streaming import AsyncStream, Stream, stream
from ibidem.anthropic.tools import tools_for

__all__ = [
    "AsyncStream",
    "Stream",
    "aanswer",
    "adapt",
    "answer",
    "aplan_tool",
    "plan_tool",
    "runner",
    "stream",
    "tools_for",
]
