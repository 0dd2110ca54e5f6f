"""Telling: what a model is given in the place of a result that could not be had."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ibidem.core.effects import Effect
from ibidem.core.faults import Fault
from ibidem.core.wording import redacted_traceback
from ibidem.report.events import logger

NOTE = "Other calls are unaffected; work with their results."

PARTIAL_RESULTS_PROMPT = """\
A tool call that fails is answered with a JSON object: {"error": {"kind": ..., "message": ..., "retryable": ...}}. It says \
nothing about the other calls you made with it: their results are complete and correct, so use them. If "retryable" is \
true, you may make the same call again once, after "retry_after_s" seconds if that is given; "attempts" counts the tries \
that were already made for you. If it is false, the same call will fail again: change the arguments, use another tool, or \
go on without it. "invalid_arguments" and "not_found" mean that the arguments need changing. "maybe_executed" means that \
nobody knows whether the change was made: look before you make it again. "circuit_open" means that the service is down \
for now: do not call it. Tell the user what you could not find out, and never invent a result."""
"""A paragraph for the system prompt: how to read failed calls beside those that went well."""


def speaks(errors: Any, effect: Effect) -> bool:
    """Whether a model is told of a failure of a tool with this effect, rather than its run ended.

    An undeclared tool runs as without ibidem, and so fails as without it, unless `errors=` was given.
    """
    return errors != "raise" if errors is not None else effect.declared


def told(fault: Fault, errors: Any) -> str:
    """Put a fault into the words of `Guard(errors=...)`, or into JSON.

    A function of the user's that fails, or answers no text, is logged: the model is told in JSON all the same.
    """
    if callable(errors):
        words: Callable[[Fault], Any] = errors
        try:
            text = words(fault)
        except Exception:
            logger.exception("errors= failed; the model is told in ibidem's words")
        else:
            if isinstance(text, str):
                return text
            logger.error("errors= answered %s instead of a text; the model is told in ibidem's words", type(text))
    return as_json(fault)


def as_json(fault: Fault) -> str:
    """Write a fault as the small JSON object that a model reads."""
    return json.dumps({**as_error(fault), "note": NOTE}, ensure_ascii=False)


def as_error(fault: Fault) -> dict[str, Any]:
    """Give what a model reads of a fault, as a part of more."""
    error: dict[str, Any] = {"kind": fault.kind, "message": fault.message, "retryable": fault.retryable}
    if fault.retry_after is not None:
        error["retry_after_s"] = math.ceil(fault.retry_after)
    error["attempts"] = fault.attempts
    return {"error": error}


def log(tool: str, fault: Fault) -> None:
    """Write down what the model is not told: where it was raised and what caused it, without secrets."""
    logger.warning("%s failed (%s) and the model is told so: %s", tool, fault.kind, redacted_traceback(fault.exception))
