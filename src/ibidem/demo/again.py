"""The same agent in a new process: it goes on with the conversation, and prints what was said as one line of JSON."""

import argparse
import json
import sys
import time
from pathlib import Path

from langchain_core.messages import AnyMessage, messages_to_dict
from langgraph.checkpoint.sqlite import SqliteSaver
from langsmith import tracing_context

from ibidem.demo.agent import build, converse, tools, with_ibidem
from ibidem.demo.script import LATER, decider


def main() -> int:
    """Hold the later part of the conversation.

    Returns:
        0; 2 if Claude could not be asked.
    """
    parser = argparse.ArgumentParser(prog="python -m ibidem.demo.again", description="The demo starts this by itself.")
    parser.add_argument("url", help="the address of the shop")
    parser.add_argument("threads", help="the checkpointer's file")
    parser.add_argument("memo", type=Path, help="the folder of the store; its key stands in IBIDEM_KEY")
    parser.add_argument("--model", help="which Claude decides; without it, the script")
    options = parser.parse_args()
    if options.model is None:
        _tell(*_go_on(options.url, options.threads, options.memo, None))
        return 0
    from ibidem.demo.live import Unreachable

    try:
        _tell(*_go_on(options.url, options.threads, options.memo, options.model))
    except Unreachable as error:  # named by its kind alone: what it says may quote a request
        print(f"Claude could not be asked ({type(error).__name__})", file=sys.stderr)
        return 2
    return 0


def _go_on(url: str, threads: str, memo: Path, claude: str | None) -> tuple[list[AnyMessage], float]:
    with tracing_context(enabled=False), SqliteSaver.from_conn_string(threads) as saver:
        graph = with_ibidem(build(decider(claude), tools(url), saver), memo)
        earlier = graph.get_state({"configurable": {"thread_id": "ann"}}).values["messages"]
        start = time.perf_counter()
        transcript = converse(graph, [turn.asks for turn in LATER], thread="ann")
        return transcript[len(earlier) :], time.perf_counter() - start


def _tell(said: list[AnyMessage], seconds: float) -> None:
    print(json.dumps({"said": messages_to_dict(said), "seconds": seconds}))


if __name__ == "__main__":
    sys.exit(main())
