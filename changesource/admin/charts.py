"""The last hour as charts: bars in an SVG, a minute each, and the same in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from changesource.store.minutes import MINUTES, Minute, of

WIDTH, HEIGHT = 600, 100
STEP = WIDTH // MINUTES
LEAST = 1.5  # so that what is 0 is seen to be known
FEW_SECONDS = 10  # the first seconds of a minute tell little of it


@dataclass(frozen=True)
class Bar:
    """A minute in the SVG, and what it says."""

    x: float
    y: float
    height: float
    words: str


@dataclass(frozen=True)
class Chart:
    """``top`` is what the height of the chart stands for; ``summary`` says in words what it shows."""

    title: str
    top: str
    bars: Sequence[Bar]
    summary: str
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Line:
    """A minute as a row of the table that stands beside the charts."""

    time: str
    rows_per_second: str
    lag: str


def rate_in_words(rate: float) -> str:
    """A number of rows a second, as exact as it is of use."""
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def rate_of(minute: Minute, now: datetime) -> float:
    """Rows a second in a minute, which may not be over yet."""
    passed = now.timestamp() - minute.minute * 60
    return minute.rows / min(60.0, max(passed, FEW_SECONDS))


def _lag_of(minute: Minute, now: datetime) -> float | None:
    return None if minute.lag_ms is None else minute.lag_ms / 1000


def _seconds(lag: float) -> str:
    return "under 1 s" if lag < 1 else f"{lag:,.0f} s"


def throughput(hour: Sequence[Minute], now: datetime) -> Chart:
    """Rows a second, of all replicas together."""
    return _chart("Rows per second", hour, now, rate_of, rate_in_words, least=10)


def lag(hour: Sequence[Minute], now: datetime) -> Chart:
    """How old changes were when they were sent: of each minute the oldest, of all replicas."""
    return _chart("Lag", hour, now, _lag_of, _seconds, least=5, unit=" s")


def table(hour: Sequence[Minute], now: datetime) -> list[Line]:
    """What both charts show, latest first."""
    return [
        Line(_clock(minute), rate_in_words(rate_of(minute, now)), "-" if value is None else _seconds(value))
        for minute, value in ((one, _lag_of(one, now)) for one in reversed(hour))
    ]


def spark(hour: Sequence[Minute], now: datetime, height: int = 24) -> str:
    """Rows a second as the path of a small SVG, ``WIDTH`` wide; "" where nothing is known."""
    rates = [(minute.minute, rate_of(minute, now)) for minute in hour]
    top = _nice(max((rate for _, rate in rates), default=0), least=1)
    first = of(now) - MINUTES + 1
    return "".join(
        f"M{(minute - first) * STEP + STEP / 2:g} {height}V{height - max(LEAST, rate / top * height):.1f}"
        for minute, rate in rates
    )


def _chart(
    title: str,
    hour: Sequence[Minute],
    now: datetime,
    value_of: Callable[[Minute, datetime], float | None],
    words: Callable[[float], str],
    *,
    least: float,
    unit: str = "",
) -> Chart:
    found = [(minute, value) for minute in hour if (value := value_of(minute, now)) is not None]
    if not found:
        return Chart(title, f"{least:g}{unit}", (), f"{title}: nothing was sent in the last hour.")
    highest, last = max(value for _, value in found), found[-1][1]
    top = _nice(highest, least)
    summary = f"{title} in the last hour: at most {words(highest)}, in the latest minute {words(last)}."
    return Chart(title, f"{top:,g}{unit}", list(_bars(found, top, of(now), words)), summary)


def _bars(
    found: Sequence[tuple[Minute, float]], top: float, current: int, words: Callable[[float], str]
) -> Iterator[Bar]:
    first = current - MINUTES + 1
    for minute, value in found:
        height = round(max(LEAST, value / top * HEIGHT), 1)
        x = (minute.minute - first) * STEP + 1
        yield Bar(x, round(HEIGHT - height, 1), height, f"{_clock(minute)}: {words(value)}")


def _nice(value: float, least: float) -> float:
    """The first of 1, 2, 5, 10, 20, ... that is no less than the two."""
    found = 1
    while found < max(value, least):
        found = found * 5 // 2 if str(found).startswith("2") else found * 2
    return found


def _clock(minute: Minute) -> str:
    return f"{datetime.fromtimestamp(minute.minute * 60, UTC):%H:%M}"
