"""Regular expressions by PCRE2, MongoDB's own engine, so that every pattern means the same here.

PCRE2 counts the steps of a match and gives up beyond a limit, so a pattern cannot hang a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import pcre2
from bson.regex import Regex

Search: TypeAlias = "Callable[[str], pcre2.Match | None]"

OPTIONS = {"i": pcre2.I, "m": pcre2.M, "s": pcre2.S, "x": pcre2.X, "u": pcre2.NOFLAG}
_PYTHON_FLAGS = {re.I: "i", re.M: "m", re.S: "s", re.U: "u", re.X: "x"}


# What is quoted (\\Q...\\E), or escaped; a backslash before another escapes that one.
_ESCAPE = re.compile(r"\\Q.*?(?:\\E|\Z)|\\x(?:\{([0-9A-Fa-f]*)\}|([0-9A-Fa-f]{0,2}))|\\(.)", re.S)


class RegexFailed(ValueError):
    """A match took more steps than PCRE2 allows."""


def options_of(regex: Regex[str]) -> str:
    """The options of a BSON regular expression, as letters."""
    return "".join(letter for flag, letter in _PYTHON_FLAGS.items() if regex.flags & flag)


@lru_cache(maxsize=512)
def compile_regex(pattern: str, options: str) -> Search:
    """A search for ``pattern``; ``ValueError`` where it or its options are not valid.

    The search raises ``RegexFailed`` where it takes too many steps.
    """
    flags = pcre2.A  # MongoDB's \\d and \\w are those of ASCII
    for letter in options:
        if letter not in OPTIONS:
            raise ValueError(f"the option {letter!r} is none of {', '.join(OPTIONS)}")
        flags |= OPTIONS[letter]
    if "\0" in pattern:
        raise ValueError("a regular expression cannot hold U+0000")
    try:
        # Interpreted: the machine code of its compiler has a stack so small that long texts fail that should match.
        compiled = pcre2.compile(_ESCAPE.sub(_as_pcre2, pattern), flags, jit=False)
    except (pcre2.PatternError, pcre2.LibraryError, ValueError) as exc:
        raise ValueError(f"it is no valid regular expression: {exc}") from exc

    def search(text: str) -> pcre2.Match | None:
        try:
            return compiled.search(text)
        except (pcre2.LibraryError, UnicodeEncodeError) as exc:
            raise RegexFailed(f"the regular expression failed: {exc}") from exc

    return search


def _as_pcre2(found: re.Match[str]) -> str:
    """An escape as PCRE2 itself reads it: its binding has it read \\x and \\u as JavaScript does."""
    braced, digits, other = found.groups()
    if other in ("u", "U"):
        raise ValueError(f"\\{other} is not supported; write \\x{{...}}")
    code = braced if braced is not None else digits
    if code is None:
        return found[0]
    if not code:
        raise ValueError("\\x needs digits")
    return f"\\N{{U+{code}}}"
