"""A replica that believes nothing, and never gives up: it comes back whenever its connection breaks."""

from __future__ import annotations

import asyncio
import threading

from websockets.exceptions import WebSocketException

from tests.harness.reader import Reader

AGAIN_SECONDS = 0.1


class Follower:
    """Reads a change stream into a model replica, in a thread of its own, until ``stop``.

    ``failure`` is what it refused, or died of; ``trouble`` the last reason why a connection ended.
    """

    def __init__(self, stream_url: str) -> None:
        """``stream_url`` is the server's WebSocket address."""
        self.reader = Reader(stream_url, app_id="reader")
        self.failure: BaseException | None = None
        self.trouble = ""
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    @property
    def synced(self) -> bool:
        """Whether it has its initial sync."""
        return bool(self.reader.replica_version)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the model stays as it was after the last whole transaction."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(30)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run must end with it
            self.failure = error
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        while True:
            try:
                if self.synced:
                    await self.reader.follow(lambda: False)
                else:
                    await self.reader.sync()
            except (OSError, WebSocketException, EOFError) as error:
                if isinstance(error, TimeoutError):
                    raise
                self.trouble = repr(error)
                await asyncio.sleep(AGAIN_SECONDS)
