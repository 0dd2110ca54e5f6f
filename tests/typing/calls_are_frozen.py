"""What type checkers must find: nobody changes a call. Read by pyright and mypy, never run."""

from dataclasses import replace
from typing import assert_type

from ibidem.core.call import Call


def changed(call: Call) -> None:
    """Where nothing is wrong with a line, mypy says that its comment is not needed."""
    assert_type(replace(call, key=None), Call)
    call.key = None  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    call.arguments = {}  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
