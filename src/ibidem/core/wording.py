"""Wording: what a model, or a log, is told of an exception, with everything left out that is not theirs to read.

Exceptions of clients and of the operating system are never quoted: `classify.py` has a sentence for each. What a tool's
own exception says is often what the model needs ("order 42 is already cancelled"), so it is quoted, after this:
URLs keep scheme and host, since even their paths hold tokens; headers, `name=value` pairs that name a secret, paths of
files, and words that look like keys are replaced. What no rule can tell from a word (a password quoted without its name)
passes: whoever writes `raise ToolException(f"wrong: {password}")` says it to the model.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from types import TracebackType

LONGEST = 500
"""Characters of a message; a model reads the first sentence, and a server's page of HTML is no message."""

_SENSITIVE = (
    r"(?:[\w-]*(?:token|secret|passwo?r?d|passphrase|pwd|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key"
    r"|credentials?|signature|session[-_ ]?id)|auth|sig|x-[a-z0-9-]+)"
)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*Traceback \(most recent call last\).*", re.DOTALL), ""),
    # Arguments that do not fit, in the words of pydantic and of LangChain: the caller has them, and they may be secret.
    (re.compile(r"\binput_value=(?:.*(?=, input_type=)|.*)"), "input_value=[redacted]"),
    (
        re.compile(r"(\bError invoking tool .{0,200}? with kwargs )(?:.*(?= with error:)|.*)", re.DOTALL),
        r"\1[redacted]",
    ),
    (re.compile(r"-----BEGIN[^-]*-----.*?(?:-----END[^-]*-----|\Z)", re.DOTALL), "[redacted]"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#@'\"<>]*@)?([^\s/?#'\"<>]*)[^\s'\"<>]*", re.IGNORECASE), r"\1\2"),
    (
        re.compile(r"((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=]\s*)[^\n]*", re.IGNORECASE),
        r"\1\2[redacted]",
    ),
    (
        re.compile(
            rf"(?<![\w-])({_SENSITIVE})(['\"]?\s*(?:=>|[:=]|\bis\b|\bwas\b)\s*)(?:b?'[^']*'|b?\"[^\"]*\"|[^\s,;&)\]}}]+)",
            re.IGNORECASE,
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{4,}", re.IGNORECASE), r"\1 [redacted]"),
    (re.compile(r"\b(basic|digest|token)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 [redacted]"),
    (re.compile(r"([?&])[\w.%\[\]-]+=[^\s'\"]*"), r"\1[redacted]"),
    (re.compile(r"(['\"])(?:~?/|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)[^'\"\n]*\1"), "[path]"),
    (re.compile(r"(?<![\w/.:<])(?:~|\.{1,2})?(?:/[^\s/:'\"<>|,;()]+)+/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:[\\/][^\s'\"]+|\\\\[^\s'\"]+"), "[path]"),
    (re.compile(r"(?<![\w.-])[\w.-]+(?:[/\\][\w.-]+)+\.\w{1,5}\b"), "[path]"),
    (
        re.compile(r"\b(?:sk|pk|rk|gh[posur]|github_pat|glpat|xox[abeprs]|AKIA|ASIA|AIza|ya29|eyJ)[-_.\w]{8,}"),
        "[redacted]",
    ),
)

_LONG_WORD = re.compile(r"[A-Za-z0-9_+/=.~-]{20,}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace what may be a secret, and what tells how the program is built or with whom it talks."""
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return _LONG_WORD.sub(lambda found: "[redacted]" if _is_key(found[0]) else found[0], text)


def _is_key(word: str) -> bool:
    """Whether a long word looks like a key: letters and digits mixed. An id that the model gave is mostly a UUID."""
    if _UUID.fullmatch(word):
        return False
    return any(c.isdigit() for c in word) and any(c.isalpha() for c in word)


def safe_text(exc: BaseException, *, named: bool = True) -> str:
    """Quote an exception so that a model may read it.

    Args:
        exc: It may be of any kind, and fail to be turned into text.
        named: Whether to put the name of its class before its words.
    """
    name = type(exc).__name__
    try:
        words = " ".join(redact(str(exc)[: 4 * LONGEST]).split())
    except Exception:
        words = ""
    if not words:
        return name
    text = f"{name}: {words}" if named else words
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def redacted_traceback(exc: BaseException) -> str:
    """Write an exception and what caused it for a log: where it was raised, and its words without secrets.

    Lines of source are left out: a literal in them may be a secret. `exc_info=` would let a formatter write everything.
    So are the calls of ibidem's and LangChain's that lead to a tool's own code, of which there are a dozen each time.
    """
    parts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = exc
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        parts.append("\n".join([safe_text(at), *_frames(at.__traceback__)]))
        at = at.__cause__ if at.__cause__ is not None or at.__suppress_context__ else at.__context__
    return "\ncaused by ".join(parts)


_PACKAGE = Path(__file__).parent.parent
_BODY = str(_PACKAGE / "layers" / "execute.py")
"""Where the body of a tool is called: what comes before leads to it."""


def _frames(raised: TracebackType | None) -> list[str]:
    """Give the places that an exception passed, without those that only lead to a tool's own code."""
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(raised)]
    if found and not _leads(found[-1][0]):  # otherwise it was raised there, and all of it may matter
        begun = next((number for number, (file, *_) in enumerate(found, 1) if file == _BODY), 0)
        found = [each for each in found[begun:] if not _leads(each[0])]
    return [f"  {file}:{line} in {name}" for file, line, name in found]


def _leads(file: str) -> bool:
    """Whether code of a file calls tools for others: ours, but for the demo's and the fakes', and LangChain's."""
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return path.relative_to(_PACKAGE).parts[0] not in {"demo", "testing"}
    tail = path.parts[-3:]
    return tail[:2] == ("langchain_core", "tools") or tail == ("langgraph", "prebuilt", "tool_node.py")
