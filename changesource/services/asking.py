"""Questions that others may answer late or never, asked beside whoever wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Question(Generic[T]):
    """Asks in a thread of its own, at most one at a time, and keeps the answer for a while.

    So nobody waits longer than he likes, whatever hangs (the resolving of names has no timeout), and many that want to
    know at once cost one question.
    """

    def __init__(self, ask: Callable[[], T], kept: float) -> None:
        """``ask`` returns the answer or raises; the answer is good for ``kept`` seconds."""
        self._ask = ask
        self._kept = kept
        self._lock = threading.Lock()
        self._answer: Future[T] | None = None
        self._answered = 0.0

    def begin(self) -> Future[T]:
        """Return the answer that is known or awaited; ask where it is too old."""
        with self._lock:
            known = self._answer
            if known is None or (known.done() and monotonic() - self._answered >= self._kept):
                known = self._answer = Future()
                threading.Thread(target=self._run, args=(known,), name="question", daemon=True).start()
            return known

    def _run(self, answer: Future[T]) -> None:
        try:
            found = self._ask()
        except Exception as error:  # noqa: BLE001 - raised where the answer is wanted
            self._answered = monotonic()
            answer.set_exception(error)
        else:
            self._answered = monotonic()
            answer.set_result(found)
