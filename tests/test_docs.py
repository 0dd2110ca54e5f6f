"""Every Python example of README.md and docs/ runs, a page at a time, top to bottom."""

import re
import warnings
from pathlib import Path

import pytest

import ibidem

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def a_graph():
    from langchain_core.tools import tool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    @tool
    def get_order(order_id: str) -> str:
        """Look up an order."""
        return order_id

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([get_order]))
    builder.add_edge(START, "tools")
    return builder.compile()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # README.md names a folder as its readers would, and gives no key
    monkeypatch.setenv("IBIDEM_KEY", "a key of the tests, long enough")
    names = {"graph": a_graph()}  # one for the whole page: a reader has no other
    for source in examples(page):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ibidem.IbidemWarning)  # the pages declare tools that the graph here lacks
            exec(compile(source, str(page), "exec"), names)


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_docs_and_the_code_show_one_table_of_overlaps():
    from ibidem.core import resources

    def table(text):
        return [line.replace(" ", "") for line in text.splitlines() if line.startswith(("| `order", "| `*`"))]

    page = (ROOT / "docs" / "effects.md").read_text()
    assert table(resources.__doc__) == table(page)
    assert len(table(page)) == 5


def test_the_docs_explain_every_kind_of_fault():
    from ibidem.core.faults import KINDS

    page = (ROOT / "docs" / "failures.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if re.match(r"\| `\w+` \|.*\| (no|yes)", line)]
    assert sorted(rows) == sorted(KINDS)
