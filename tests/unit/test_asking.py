"""Questions are asked beside whoever wants to know, once for many, and again once the answer is old."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from changesource.exceptions import SourceUnavailable
from changesource.services.asking import Question


@pytest.fixture
def hangs() -> Iterator[threading.Event]:
    """What a question hangs at, let go of at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_what_hangs_holds_up_nobody_and_is_asked_once(hangs: threading.Event) -> None:
    asked: list[float] = []

    def ask() -> str:
        asked.append(time.monotonic())
        hangs.wait(20)
        return "late"

    question = Question(ask, kept=0.0)
    answers = [question.begin() for _ in range(5)]
    with pytest.raises(TimeoutError):
        answers[0].result(timeout=0.01)
    hangs.set()
    assert {answer.result(timeout=10) for answer in answers} == {"late"}
    assert len(asked) == 1
    assert question.begin().result(timeout=10) == "late"
    assert len(asked) == 2


def test_an_answer_is_kept_for_a_while() -> None:
    answers = iter(range(10))
    question = Question(lambda: next(answers), kept=3600.0)
    assert [question.begin().result(timeout=10) for _ in range(3)] == [0, 0, 0]


def test_an_error_is_raised_where_the_answer_is_wanted() -> None:
    def ask() -> None:
        raise SourceUnavailable("gone")

    answer: Future[None] = Question(ask, kept=1.0).begin()
    with pytest.raises(SourceUnavailable, match="gone"):
        answer.result(timeout=10)
