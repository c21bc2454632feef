"""``manage.py serve``: the server with flow control and, unless told otherwise, the watcher."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError

from changesource import conf
from changesource.embedded import EmbeddedMongoDB, listens
from changesource.exceptions import SettingError
from changesource.management.commands._coded import CodedCommand, end_by_sigterm
from changesource.nestjs import translate
from changesource.services import access, announcing, sample, startup

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a server in a container must listen there


class Command(CodedCommand):
    """Serve replicas, the admin and the health pages."""

    help = "Serve WebSocket clients and the admin, with flow control; runs the watcher too unless --no-watcher."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--port", type=int, help="instead of PORT (3000)")
        parser.add_argument("--host", help=f"address to listen on ({LOOPBACK} with DEBUG on, else {EVERYWHERE})")
        parser.add_argument("--no-watcher", action="store_true", help="leave watching to runwatcher processes")
        parser.add_argument("--sample-data", action="store_true", help="fill an empty database with the sample app")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare what is missing, then serve until stopped."""
        if options["port"]:
            os.environ["PORT"] = str(options["port"])
            conf.settings.cache_clear()
        end_by_sigterm()
        embedded = self._embedded()
        try:
            chosen = conf.settings()
            host = options["host"] or (LOOPBACK if chosen.debug else EVERYWHERE)
            given = translate(os.environ, conf.ROOT)
            self._say(announcing.translated(given))
            if not chosen.debug:
                self._say(announcing.announce(chosen, given.variables))
            startup.prepare_database(startup.DATABASE_PATIENCE)
            access.check_host(host, chosen)
            if options["sample_data"] and sample.load(chosen, embedded=embedded is not None):
                self.stdout.write("Sample data: users, rooms, messages and accounts, and mappings for them.")
            self._prepare(chosen)
            if embedded:
                self.stdout.write(f"MongoDB        {embedded.uri}   (MONGODB_URI, the embedded one)")
            self._serve(chosen, host, watch=not options["no_watcher"])
        finally:
            if embedded:
                embedded.stop()

    def _embedded(self) -> EmbeddedMongoDB | None:
        """Start the embedded MongoDB where DEBUG is on and no other is named."""
        chosen = conf.settings()
        if chosen.mongodb_uri:
            return None
        if not chosen.debug:
            raise SettingError("MONGODB_URI is not set.", remedy="Set it to the URI of a MongoDB replica set.")
        if listens(chosen.port):
            # Said now, since two processes cannot share the embedded MongoDB's files either.
            raise CommandError(f"Port {chosen.port} is taken: stop what holds it (another `serve`?), or set PORT.")
        embedded = EmbeddedMongoDB(chosen.data_dir / "mongodb")
        embedded.start()
        os.environ["MONGODB_URI"] = embedded.uri
        conf.settings.cache_clear()
        return embedded

    def _prepare(self, chosen: conf.Settings) -> None:
        startup.prepare(chosen)
        made = startup.patiently(lambda: startup.first_admin(generate=chosen.debug))
        if made:
            self.stdout.write(f"Admin user {made[0]!r} with password {made[1]!r} (shown this once).")
        if not startup.patiently(startup.has_admin):
            self._say([announcing.missing_admin()])
        if key := startup.patiently(lambda: startup.first_api_key(chosen)):
            self.stdout.write(
                f"API key (shown this once; for ZERO_UPSTREAM_DB=ws://zero:KEY@HOST:PORT/changes/v0/stream): {key}"
            )

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(line)
        self.stdout.flush()  # what follows may take a while, or end the start

    def _serve(self, chosen: conf.Settings, host: str, *, watch: bool) -> None:
        from changesource.services.server import ServingFailed, serve  # noqa: PLC0415 - chooses Twisted's reactor

        def ready() -> None:
            shown = "localhost" if host in (LOOPBACK, EVERYWHERE) else host
            self.stdout.write(f"Admin          http://{shown}:{chosen.port}/admin/")
            self.stdout.write(f"Change source  ws://{shown}:{chosen.port}/changes/v0/stream   (ZERO_UPSTREAM_DB)")
            self.stdout.write(f"Health         http://{shown}:{chosen.port}/healthz")
            self.stdout.flush()

        try:
            serve(chosen, host, watch=watch, ready=ready)
        except ServingFailed as error:
            remedy = "Another process may hold the port: stop it, or set PORT."
            raise CommandError(f"{error}. {remedy if 'listen' in str(error) else ''}".rstrip()) from error
