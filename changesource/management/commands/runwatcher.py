"""``manage.py runwatcher``: watches MongoDB and publishes to the channel layer."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import CommandError
from prometheus_client import start_http_server

from changesource import conf
from changesource.management.commands._coded import CodedCommand, end_by_sigterm
from changesource.services import startup
from changesource.services.runtime import runtime


class Command(CodedCommand):
    """Watch MongoDB for all servers."""

    help = "Watch MongoDB and publish its changes to the channel layer, for servers that run with --no-watcher."

    def handle(self, *args: Any, **options: Any) -> None:
        """Watch until SIGTERM or SIGINT."""
        end_by_sigterm()
        chosen = conf.settings()
        if not chosen.redis_url:
            self.stderr.write("REDIS_URL is not set: nobody outside this process hears what it publishes.")
        startup.prepare_database(startup.DATABASE_PATIENCE)
        startup.prepare(chosen)
        self._tell(chosen.watcher_metrics_port)
        asyncio.run(self._watch())

    def _tell(self, port: int) -> None:
        """Serve the metrics, and nothing else, in a thread: this command has no pages otherwise."""
        if not port:
            return
        try:
            start_http_server(port)
        except OSError as error:
            raise CommandError(f"WATCHER_METRICS_PORT {port} cannot be listened on: {error.strerror}.") from error

    async def _watch(self) -> None:
        shared = runtime()
        task = asyncio.create_task(shared.watch(), name="watcher")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        self.stdout.write("Watching.")
        self.stdout.flush()
        try:
            await task
        except asyncio.CancelledError:
            pass
        finally:
            await shared.close()
