"""A replica that comes back after every connection that it loses, as zero-cache does, and notes how long that took."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from websockets.exceptions import WebSocketException

from devtools.processes import wait_until
from tests.harness.reader import Reader

FIRST_WAIT, LONGEST_WAIT = 0.025, 10.0  # zero-cache's own


class Wanderer:
    """Syncs and follows in a thread of its own; use as a context manager. What it cannot believe is raised at the end.

    ``outages`` are the seconds from the loss of a connection to the next commit, one for each connection that was lost
    while it followed.
    """

    def __init__(self, stream_url: str, app_id: str) -> None:
        self.reader = Reader(stream_url, app_id)
        self.outages: list[float] = []
        self._lost: float | None = None
        self._wait = FIRST_WAIT
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"wanderer {app_id}", daemon=True)

    @property
    def live(self) -> bool:
        """Whether it has committed on the connection that it has."""
        return bool(self.reader.replica_version) and self._lost is None

    def __enter__(self) -> Wanderer:
        self._task = self._loop.create_task(self._follow())
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)
        self._loop.close()
        if not self._task.cancelled():
            self._task.result()

    def until_live(self, commits: int = 1) -> None:
        """Wait for so many more commits, the last of them on a connection that stands."""
        target = len(self.reader.model.commits) + commits
        wait_until(
            lambda: self._ended() or (self.live and len(self.reader.model.commits) >= target),
            f"{commits} commits at {self.reader.app_id}",
            60,
        )

    def until_has(self, table: str, key: tuple[object, ...]) -> None:
        """Wait for a row, and for the end of its transaction."""
        model = self.reader.model
        wait_until(
            lambda: self._ended() or (table in model.tables and key in model.rows(table) and not model.open),
            f"the row {key} at {self.reader.app_id}",
            90,
        )

    def _ended(self) -> bool:
        """Whether it gave up; raises why."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
        return False

    def _run(self) -> None:
        with suppress(asyncio.CancelledError, Exception):  # raised by who leaves the context
            self._loop.run_until_complete(self._task or asyncio.sleep(0))

    async def _follow(self) -> None:
        while True:
            # What the model refuses is an AssertionError, and ends it.
            with suppress(OSError, EOFError, WebSocketException):
                await (self._stream() if self.reader.replica_version else self.reader.sync())
                self._wait = FIRST_WAIT
                continue  # synced, after which zero-cache connects anew
            if self._lost is None and self.reader.replica_version:
                self._lost = time.monotonic()
            await asyncio.sleep(self._wait)
            self._wait = min(self._wait * 2, LONGEST_WAIT)

    async def _stream(self) -> None:
        reader = self.reader
        async with reader.connection() as socket:
            async for frame in reader.frames(socket):
                assert reader.model.reset is None, reader.model.reset
                if frame.startswith('["commit"'):
                    self._wait = FIRST_WAIT
                    if self._lost is not None:
                        self.outages.append(time.monotonic() - self._lost)
                        self._lost = None
