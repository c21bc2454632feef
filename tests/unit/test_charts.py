"""The charts of the last hour: a bar a minute where it belongs, and the same in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from changesource.admin import charts
from changesource.store.minutes import Minute, of

NOW = datetime(2026, 5, 1, 12, 30, 30, tzinfo=UTC)
CURRENT = of(NOW)


def test_a_bar_stands_at_its_minute_as_high_as_it_is() -> None:
    hour = [Minute(CURRENT - 59, 6000, 0), Minute(CURRENT - 1, 0, None), Minute(CURRENT, 1500, 2000)]
    chart = charts.throughput(hour, NOW)
    assert chart.top == "100"
    assert [(bar.x, bar.height, bar.words) for bar in chart.bars] == [
        (1, 100, "11:31: 100"),
        (581, 1.5, "12:29: 0"),
        (591, 50, "12:30: 50"),
    ]
    assert all(bar.y + bar.height == charts.HEIGHT for bar in chart.bars)
    assert chart.summary == "Rows per second in the last hour: at most 100, in the latest minute 50."
    lag = charts.lag(hour, NOW)
    assert [(bar.x, bar.height, bar.words) for bar in lag.bars] == [
        (1, 1.5, "11:31: under 1 s"),
        (591, 40, "12:30: 2 s"),
    ]
    assert [(line.time, line.rows_per_second, line.lag) for line in charts.table(hour, NOW)] == [
        ("12:30", "50", "2 s"),
        ("12:29", "0", "-"),
        ("11:31", "100", "under 1 s"),
    ]


def test_an_hour_without_anything() -> None:
    chart = charts.lag([], NOW)
    assert (chart.bars, chart.top) == ((), "5 s")
    assert "nothing was sent" in chart.summary
    assert charts.spark([], NOW) == ""


def test_the_small_chart_stays_within_its_bounds() -> None:
    hour = [Minute(CURRENT - ago, ago * 97, None) for ago in range(59, -1, -1)]
    numbers = [float(number) for number in re.findall(r"[\d.]+", charts.spark(hour, NOW))]
    assert len(numbers) == 3 * 60
    assert all(0 < x < charts.WIDTH for x in numbers[0::3])
    assert all(0 <= y < 24 for y in numbers[2::3])


@pytest.mark.parametrize(
    ("highest", "top"), [(0, "10"), (10, "10"), (11, "20"), (21, "50"), (51, "100"), (123_456, "200,000")]
)
def test_scales_end_at_round_numbers(highest: int, top: str) -> None:
    assert charts.throughput([Minute(CURRENT - 1, highest * 60, None)], NOW).top == top
