"""Regular expressions by PCRE2, MongoDB's own engine, so that every pattern means the same here.

PCRE2 counts the steps of a match, but anew from each place of the text, and without the characters that one step goes
over. So a search is tried with few steps for each place first; where that does not do, the whole of it is one match
whose steps count together; and it is never begun where what it may take at most is not left (see ``budget``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

import pcre2
from bson.regex import Regex

from changesource.mapping.budget import charge

Search: TypeAlias = "Callable[[str], pcre2.Match | None]"

OPTIONS = {"i": pcre2.I, "m": pcre2.M, "s": pcre2.S, "x": pcre2.X, "u": pcre2.NOFLAG}
_PYTHON_FLAGS = {re.I: "i", re.M: "m", re.S: "s", re.U: "u", re.X: "x"}

MAX_PATTERN: Final = 32_764
"""As in MongoDB."""
# What a search takes besides its steps.
_CALL: Final = 50
# For each place of the text, and more where alternatives are tried; then for all places together.
_FEW: Final = 16
_MANY: Final = (20_000, 200_000, 1_000_000)
# So many characters are gone over, or compared, or groups copied, in the time of a step.
_SCANNED: Final = 20
_COMPARED: Final = 25
_COPIED: Final = 10
_LEAST_REPEATED: Final = 64
_HEAP_KIB: Final = 64 * 1024
_LIMITED: Final = (-47, -53, -63)  # PCRE2_ERROR_MATCHLIMIT, _DEPTHLIMIT, _HEAPLIMIT


# What is quoted (\\Q...\\E), or escaped; a backslash before another escapes that one.
_ESCAPE = re.compile(r"\\Q.*?(?:\\E|\Z)|\\x(?:\{([0-9A-Fa-f]*)\}|([0-9A-Fa-f]{0,2}))|\\(.)", re.S)

# A repeated character costs a step only when one of its repetitions is given up again. With these some never are:
# possessive repeats, atomic groups, assertions, recursion, conditions, verbs; and references to what was found, and
# long repeats, take as many characters in one step. Found in a class or a comment they do no harm.
_UNCOUNTED = re.compile(
    r"[*+?}](?:\s|#.*\n)*\+|\(\?(?!:|[imsxn^-]*[:)]|P?<[A-Za-z_]|')|\(\*(?!(?:UCP|UTF)\))|\\(?:[1-9gkXR]|K)"
)
# An assertion without a repeat goes over no more characters than it has.
_SHORT_ASSERTION = re.compile(r"\(\?<?[=!](?:[^()*+{\\]|\\[bBdDwWsS.])*\)")
_LEAST = re.compile(r"\{\s*(\d+)")
_REPEATED = re.compile(r"[*+{]|\\[1-9gkX]")
_FLAT = re.compile(r"[^*+?{(|]*")
# What is compared in one step: a text, or a character with a class.
_COMPARED_AT_ONCE = re.compile(r"\[(?:\\.|[^\]\\])*\]|[^|()\[*+?{}^$.]+", re.S)
_ONE_PLACE = re.compile(r"(?:\(\*(?:UCP|UTF)\))*(?:\^|\\A)[^|]*")
# Whatever refers to the whole pattern, or to the place where a match began, means another thing inside of one.
_WHOLE = re.compile(r"\(\*|\(\?[R0]|\\(?:g[<']?0|K)")
_MULTILINE = re.compile(r"\(\?[a-z^]*m")
_LEADING = re.compile(r"(?:\(\*(?:UCP|UTF)\))*")


class RegexFailed(ValueError):
    """A search that takes too many steps, or cannot be made in this text."""


def options_of(regex: Regex[str]) -> str:
    """The options of a BSON regular expression, as letters."""
    return "".join(letter for flag, letter in _PYTHON_FLAGS.items() if regex.flags & flag)


@lru_cache(maxsize=512)
def compile_regex(pattern: str, options: str) -> Search:
    """A search for ``pattern``; ``ValueError`` where it or its options are not valid.

    The search raises ``RegexFailed`` or ``BudgetSpent`` where it takes too many steps.
    """
    flags = pcre2.A  # MongoDB's \\d and \\w are those of ASCII
    for letter in options:
        if letter not in OPTIONS:
            raise ValueError(f"the option {letter!r} is none of {', '.join(OPTIONS)}")
        flags |= OPTIONS[letter]
    if "\0" in pattern:
        raise ValueError("a regular expression cannot hold U+0000")
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN:
        raise ValueError(f"a regular expression has at most {MAX_PATTERN} bytes")
    own = _ESCAPE.sub(_as_pcre2, pattern)
    try:
        _compiled(own, flags)
        return _Search(own, flags, options)
    except (pcre2.PatternError, pcre2.LibraryError, ValueError) as exc:
        raise ValueError(f"it is no valid regular expression: {exc}") from exc


def _compiled(pattern: str, flags: int) -> pcre2.Pattern:
    # Interpreted: the machine code of its compiler has a stack so small that long texts fail that should match, and
    # counts other steps.
    return pcre2.compile(pattern, flags, jit=False)


class _Search:
    """See ``compile_regex``."""

    def __init__(self, pattern: str, flags: int, options: str) -> None:
        self._pattern, self._flags, self._options = pattern, flags, options
        # Without repeats and groups hardly any place takes a step.
        self._flat = _FLAT.fullmatch(pattern) is not None
        multiline = "m" in options or _MULTILINE.search(pattern) is not None
        self._one_place = not multiline and _ONE_PLACE.fullmatch(pattern) is not None
        least = max((int(found[1][:6]) for found in _LEAST.finditer(pattern)), default=0)
        self._scans = least > _LEAST_REPEATED or bool(
            _UNCOUNTED.search(_SHORT_ASSERTION.sub("", pattern)) and _REPEATED.search(pattern)
        )
        longest = max(map(len, _COMPARED_AT_ONCE.findall(pattern)), default=0)
        few = _FEW // 4 if self._scans else _FEW
        self._few = 2 if self._flat else few + 2 * pattern.count("|")
        self._quick = _compiled(_limit(self._few) + pattern, flags)
        # Each step copies what the groups have found so far.
        self._step = 1 + longest // _COMPARED + self._quick.groups // _COPIED
        self._thorough: list[pcre2.Pattern | None] = [None for _ in _MANY]

    def __call__(self, text: str) -> pcre2.Match | None:
        """The first place where the pattern is found."""
        length = len(text)
        step = self._step * (1 + length // _SCANNED) if self._scans else self._step
        places = 1 if self._one_place else 1 + length // 8 if self._flat else 1 + length
        try:
            if self._flat or places * self._few * step <= _MANY[-1]:
                charge(_CALL + places * self._few * step)
                return self._quick.search(text)
        except (pcre2.LibraryError, UnicodeEncodeError) as exc:
            if getattr(exc, "code", 0) not in _LIMITED:
                raise RegexFailed(f"the regular expression failed: {exc}") from exc
        for index, steps in enumerate(_MANY):
            charge(_CALL + steps * step)
            try:
                return self._as_one_match(index, steps).search(text)
            except (pcre2.LibraryError, UnicodeEncodeError) as exc:
                if getattr(exc, "code", 0) not in _LIMITED:
                    raise RegexFailed(f"the regular expression failed: {exc}") from exc
        raise RegexFailed("the regular expression takes too many steps in this text")

    def _as_one_match(self, index: int, steps: int) -> pcre2.Pattern:
        found = self._thorough[index]
        if found is None:
            leading = _LEADING.match(self._pattern)
            begin = leading[0] if leading else ""
            body = self._pattern[len(begin) :]
            if _WHOLE.search(body):
                raise RegexFailed("the regular expression takes too many steps in this text")
            end = "\n)" if "x" in self._options else ")"  # the end of a comment
            try:
                found = _compiled(rf"{_limit(steps)}{begin}\A(?s:.*?)\K(?:{body}{end}", self._flags)
            except (pcre2.PatternError, ValueError) as exc:
                raise RegexFailed("the regular expression takes too many steps in this text") from exc
            self._thorough[index] = found
        return found


def _limit(steps: int) -> str:
    """What begins a pattern that may take so many steps; of several limits the lowest counts.

    Without automatic possessive repeats, whose characters would not be counted.
    """
    return f"(*LIMIT_MATCH={steps})(*LIMIT_HEAP={_HEAP_KIB})(*NO_AUTO_POSSESS)"


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
