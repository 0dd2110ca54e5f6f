"""The adapter for LangChain tools."""

from ibidem.langchain.twin import adapt

__all__ = ["adapt"]
