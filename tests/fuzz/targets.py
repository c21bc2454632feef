"""What a fuzz is: inputs, a check of each, faults that the check must find, and how many inputs there were."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from changesource.exceptions import ZerosourceError

# Processor time for one input; the slowest take a few hundredths of that.
LIMIT_SECONDS = 5.0
CHUNK = 2000  # Hypothesis remembers what it has drawn, so each so many begin anew with a seed of their own
T = TypeVar("T")


class Hang(AssertionError):
    """One input took longer than any may."""


@dataclass(frozen=True)
class Plant:
    """A fault that a target's check must find: ``replacement`` stands for the attribute at ``place``."""

    what: str
    place: str
    replacement: object


@dataclass(frozen=True)
class Target:
    """``check`` raises anything but our own errors where an input is dealt with wrongly.

    ``corpus`` holds inputs that were dealt with wrongly once, or are odd in a way that chance would not find.
    ``full`` and ``quick`` are how many inputs are drawn beside it.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    plants: Sequence[Plant]
    corpus: Sequence[Any] = ()
    full: int = 10_000
    quick: int = 250


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise ``Hang`` in what takes more processor time than this."""

    def stop(*_: object) -> None:
        raise Hang(f"it took more than {seconds:g} seconds of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    # Again and again, where something swallows the first.
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(target: Target, inputs: int, *, seconds: float = LIMIT_SECONDS) -> int:
    """Check the corpus and ``inputs`` drawn ones, always the same; return how many were checked in all."""
    checked = 0

    def one(value: Any) -> None:
        nonlocal checked
        checked += 1
        with within(seconds):
            target.check(value)

    for value in target.corpus:
        one(value)
    for number, begin in enumerate(range(0, inputs, CHUNK)):
        run = seed(number)(given(target.inputs)(one))
        settings(
            max_examples=min(CHUNK, inputs - begin),
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(run)()
    return checked


def refused(error: ZerosourceError) -> None:
    """Hold a refusal to be clear: one line of words, with its code, and nothing of Python's own."""
    text = str(error)
    assert error.message.strip(), repr(error)
    assert text.startswith(error.code), text
    assert "Traceback" not in text
    assert "object at 0x" not in text


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise AssertionError("it waits")


def raises_key_error(*_: object, **__: object) -> Any:
    """A parser with a fault."""
    raise KeyError("planted")


def hangs(*_: object, **__: object) -> Any:
    """A parser that comes to no end."""
    while True:
        pass


def gives_nothing(*_: object, **__: object) -> Any:
    """A parser that loses what it is given."""
    return
