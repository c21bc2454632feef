"""The trace of a batch: when MongoDB made its first change, read, encoded, grouped, published, delivered, acknowledged.

Its spans are made once what they tell of is over, with the times that were noted, so that the way of the data has but
``if`` in it while traces are off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import time_ns
from typing import TYPE_CHECKING

from changesource import tracing
from changesource.mapping.needs import Needs
from changesource.services.downstream import Downstream
from changesource.services.flight import MOST
from changesource.sources.base import ChangeFeed, Feeds
from changesource.stream.batches import Batch
from changesource.stream.events import Event

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

# Before a change that is older, only its age is told: the trace would be as long as that.
OLDEST_NS = 60 * 10**9
NOTHING: AbstractContextManager[None] = nullcontext()


class Times:
    """A feed that notes, in nanoseconds since 1970, when events came from another, and when they were made use of."""

    def __init__(self, source: Feeds) -> None:
        """``source`` opens the other one."""
        self._source = source
        self._feed: ChangeFeed | None = None
        self._arrived = 0
        self._came = 0
        self._made = 0

    async def feed(self, needs: Needs, after: int, current_until: int = 0) -> ChangeFeed:
        """Return this, which reads what ``source`` opens."""
        self._feed = await self._source.feed(needs, after, current_until)
        return self

    async def poll(self, wait_ms: int) -> Sequence[Event] | None:
        """See ``ChangeFeed.poll``. Whoever asks again has encoded what came before."""
        if self._feed is None:
            raise RuntimeError("no feed is open")
        self._made = time_ns()
        events = await self._feed.poll(wait_ms)
        self._arrived = 0 if events is None else time_ns()
        self._came = self._came or self._arrived
        return events

    async def close(self) -> None:
        """See ``ChangeFeed.close``."""
        if self._feed is not None:
            await self._feed.close()

    def take(self) -> tuple[int, int, int]:
        """Return when the batch that is given now began to come, when its frames were made, and now."""
        now = time_ns()
        came = self._came or now
        # What is left came last, or is still to come.
        self._came = self._arrived
        return came, self._made if self._made >= came else now, now


def batch_trace(batch: Batch, times: Times | None, links: Sequence[Link] = ()) -> AbstractContextManager[None]:
    """Begin a trace with what was done to make ``batch``, to which what is done within belongs; none without times."""
    return NOTHING if times is None else _batch_trace(batch, times, links)


@contextmanager
def _batch_trace(batch: Batch, times: Times, links: Sequence[Link]) -> Iterator[None]:
    from opentelemetry.context import Context  # noqa: PLC0415 - see tracing.start
    from opentelemetry.trace import set_span_in_context, use_span  # noqa: PLC0415

    came, made, now = times.take()
    changed = batch.time_ms * 10**6
    attributes: dict[str, tracing.Attribute] = {
        "zerosource.position": batch.end,
        "zerosource.rows": len(batch.frames),
        "zerosource.pull": batch.pull,
    }
    if changed:
        attributes["zerosource.age_seconds"] = max(0, came - changed) / 10**9
    if not 0 <= came - changed <= OLDEST_NS:
        changed = came
    make = tracing.tracer().start_span
    root = make("changes", Context(), start_time=changed, attributes=attributes, links=links)
    if root.is_recording():
        own = set_span_in_context(root, Context())
        for name, began, ended in (("read", changed, came), ("transform", came, made), ("group", made, now)):
            make(name, own, start_time=began).end(ended)
    with use_span(root, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield


class Deliveries:
    """The spans of what was sent to one replica, until it is acknowledged."""

    def __init__(self, app_id: str, shard: int) -> None:
        """``app_id`` and ``shard`` name the replica."""
        self.replica: tracing.Attributes = {"zerosource.app_id": app_id, "zerosource.shard": shard}
        # Each commit that waits for its ack: its watermark, its span, and when it was sent.
        self._sent: deque[tuple[str, Span, int]] = deque()

    def delivering(self, batch: Batch, downstream: Downstream) -> AbstractContextManager[None]:
        """Note that what is done within sends ``batch``; nothing where none of it was the replica's."""
        return self._delivering(batch, downstream) if tracing.enabled() else NOTHING

    @contextmanager
    def _delivering(self, batch: Batch, downstream: Downstream) -> Iterator[None]:
        began, commits, rows = time_ns(), downstream.commits, downstream.rows
        yield
        committed = downstream.commits != commits
        if tracing.enabled() and (committed or downstream.rows != rows):
            self._note(batch, began, downstream.rows - rows, str(downstream.committed) if committed else "")

    def _note(self, batch: Batch, began: int, rows: int, watermark: str) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415 - see tracing.start

        make, now = tracing.tracer().start_span, time_ns()
        attributes = dict(self.replica) | {
            "messaging.system": "channels",
            "messaging.operation.name": "deliver",
            "messaging.operation.type": "process",
            "zerosource.rows": rows,
        }
        # One that was pulled is within its own trace; one of a watcher that makes none begins one here.
        parent = tracing.context_of(batch.trace) if batch.trace else None
        span = make("deliver", parent, SpanKind.CONSUMER, attributes, start_time=began)
        if not span.is_recording():
            return
        make("send", set_span_in_context(span), start_time=began).end(now)
        if not watermark:
            span.end(now)
            return
        span.set_attribute("zerosource.watermark", watermark)
        self._sent.append((watermark, span, now))
        if len(self._sent) > MOST:
            self._end(acked=False)

    def acked(self, watermark: str) -> None:
        """All up to ``watermark`` is stored."""
        while self._sent and self._sent[0][0] <= watermark:
            self._end(acked=True)

    def close(self) -> None:
        """Nothing more will be acknowledged."""
        while self._sent:
            self._end(acked=False)

    def _end(self, *, acked: bool) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - see tracing.start

        _, span, sent = self._sent.popleft()
        now = time_ns()
        if acked and tracing.enabled():
            tracing.tracer().start_span("ack", set_span_in_context(span), start_time=sent).end(now)
        span.set_attribute("zerosource.acked", acked)
        span.end(now)


class CatchUpTrace:
    """The span of a replica's reading of MongoDB itself, from its beginning until it has read all that there is.

    It is begun and ended by one task, whose commands to MongoDB are within. Each batch that is read has a trace of its
    own, which names this one: they may be any number.
    """

    def __init__(self, replica: tracing.Attributes, why: str) -> None:
        """``why`` is that of the metric ``zerosource_catch_ups_total``."""
        self._span: Span | None = None
        if tracing.enabled():
            from opentelemetry.context import attach  # noqa: PLC0415 - see tracing.start
            from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

            attributes = {**replica, "zerosource.reason": why}
            self._span = tracing.tracer().start_span("catch up", attributes=attributes)
            self._token = attach(set_span_in_context(self._span))

    @property
    def links(self) -> Sequence[Link]:
        """What traces of batches name, while it lasts."""
        if self._span is None:
            return ()
        from opentelemetry.trace import Link  # noqa: PLC0415 - see tracing.start

        return (Link(self._span.get_span_context()),)

    def __enter__(self) -> None:
        """It lasts no longer than what is done within."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End it, where that was not done."""
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """It has caught up, or failed; a second call does nothing."""
        if self._span is not None:
            from opentelemetry.context import detach  # noqa: PLC0415 - see tracing.start

            detach(self._token)
            if error is not None:
                tracing.note_error(self._span, error)
            self._span.end()
            self._span = None
