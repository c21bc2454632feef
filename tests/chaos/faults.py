"""Every kind of fault: what it strikes, what it does, and how that ends."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.chaos.arrangement import SERVERS, Arrangement, send
from tests.harness.network import Link, Mode

Act = Callable[[], object]
CRASH_SECONDS = (0.2, 2.0)
PAUSE_SECONDS = (1.0, 6.0)
SECONDS = {Mode.DROP: (0.2, 4.0), Mode.DELAY: (1.0, 5.0), Mode.HALF_OPEN: (3.0, 8.0), Mode.CUT: (0.5, 2.0)}


@dataclass(frozen=True)
class Fault:
    """One kind. While one holds ``target``, no other may; it lasts a number of seconds within ``seconds``.

    ``strike`` gives what ends it, which says how much it met: nothing where it cannot be said to have struck. That is
    likely while ``ready`` says no.
    """

    kind: str
    target: str
    seconds: tuple[float, float]
    strike: Callable[[random.Random], Callable[[], int]]
    ready: Callable[[], bool] = lambda: True


def every_fault(arrangement: Arrangement) -> list[Fault]:
    """Return one fault of each kind."""
    links = arrangement.network.links.values()
    return [
        *_crashes(arrangement),
        *_pauses(arrangement),
        *(_cut_off(arrangement, link, mode) for link in links for mode in SECONDS),
    ]


def _crash(kind: str, target: str, down: Act, up: Act) -> Fault:
    def strike(_: random.Random) -> Callable[[], int]:
        down()

        def end() -> int:
            up()
            return 1

        return end

    return Fault(kind, target, CRASH_SECONDS, strike)


def _crashes(place: Arrangement) -> list[Fault]:
    def kill_watcher(leading: bool) -> Callable[[random.Random], Callable[[], int]]:
        def strike(_: random.Random) -> Callable[[], int]:
            number = place.leader() if leading else 1 - place.leader()
            place.watchers[number].kill()

            def end() -> int:
                place.start_watcher(number)
                return 1

            return end

        return strike

    def kill_server(chance: random.Random) -> Callable[[], int]:
        number = chance.randrange(SERVERS)
        place.servers[number].kill()

        def end() -> int:
            place.start_server(number)
            return 1

        return end

    return [
        Fault("kill leader", "watchers", CRASH_SECONDS, kill_watcher(leading=True)),
        Fault("kill other watcher", "watchers", CRASH_SECONDS, kill_watcher(leading=False)),
        Fault("kill server", "servers", CRASH_SECONDS, kill_server),
        _crash("kill Redis", "Redis", place.redis.kill, place.redis.start),
        _crash("kill MongoDB", "MongoDB", place.mongodb.kill, place.mongodb.start),
        _crash("kill PostgreSQL", "PostgreSQL", place.postgres.kill, place.postgres.start),
        _crash("stop PostgreSQL", "PostgreSQL", place.postgres.stop, place.postgres.start),
        _crash("kill zero-cache", "zero-cache", place.cache.kill, place.cache.start),
    ]


def _pauses(place: Arrangement) -> list[Fault]:
    def fault(kind: str, target: str, pids: Callable[[random.Random], Collection[int]]) -> Fault:
        def strike(chance: random.Random) -> Callable[[], int]:
            paused = pids(chance)
            send(paused, signal.SIGSTOP)

            def end() -> int:
                send(paused, signal.SIGCONT)
                return len(paused)

            return end

        return Fault(f"pause {kind}", target, PAUSE_SECONDS, strike)

    return [
        fault("leader", "watchers", lambda _: place.watchers[place.leader()].pids()),
        fault("other watcher", "watchers", lambda _: place.watchers[1 - place.leader()].pids()),
        fault("server", "servers", lambda chance: place.servers[chance.randrange(SERVERS)].pids()),
        fault("Redis", "Redis", lambda _: place.redis.pids()),
        fault("MongoDB", "MongoDB", lambda _: place.mongodb.pids()),
        fault("PostgreSQL", "PostgreSQL", lambda _: place.postgres.pids()),
        fault("zero-cache", "zero-cache", lambda _: place.cache.pids()),
    ]


def _cut_off(place: Arrangement, link: Link, mode: Mode) -> Fault:
    def strike(_: random.Random) -> Callable[[], int]:
        before = link.affected
        place.network.strike(link, mode)

        def end() -> int:
            place.network.heal(link)
            return link.affected - before

        return end

    return Fault(f"{mode}: {link.name}", link.name, SECONDS[mode], strike, lambda: link.connected)
