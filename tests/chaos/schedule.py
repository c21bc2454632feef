"""Which fault strikes when: by a seed, each kind about as often as any other, several at a time."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.faults import Fault

AT_ONCE = 3
POLL_SECONDS = 0.1
# A run that is to strike every kind goes on for so long at most, as a multiple of what it was given.
PATIENCE = 5


@dataclass
class Pace:
    """``gap`` seconds between two faults, on average; each lasts ``scale`` times its usual length."""

    gap: float
    scale: float


@dataclass
class Schedule:
    """Strikes ``faults`` for ``seconds``, and until each kind has struck ``at_least`` times.

    ``struck`` counts by kind; ``history`` says what happened when, in seconds since the start, and ``tell`` hears of it
    at once.
    """

    faults: Sequence[Fault]
    seed: int
    seconds: float
    at_least: int
    pace: Pace
    tell: Callable[[str], object] = str
    struck: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _held: set[str] = field(default_factory=set)
    _round: list[Fault] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = 0

    def run(self, meanwhile: Callable[[], object]) -> None:
        """Strike; ``meanwhile`` is called all the time. Returns once every fault has ended; raises what one met."""
        chance = random.Random(self.seed)
        self._started = now = time.monotonic()
        number, following = 0, now
        while not self.failures and (now < self._started + self.seconds or self._missing(now)):
            if now >= following and (fault := self._next(chance)) is not None:
                number += 1
                self._strike(fault, random.Random(f"{self.seed}/{number}"))
                following = now + self.pace.gap * chance.uniform(0.4, 1.6)
            meanwhile()
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
        for thread in self._threads:
            thread.join(120)
        if self.failures:
            raise self.failures[0]

    def hold(self, target: str) -> bool:
        """Keep all faults off ``target`` until ``release``; False while one has it."""
        with self._lock:
            free = target not in self._held
            self._held.add(target)
            return free

    def release(self, target: str) -> None:
        """Let faults at it again."""
        with self._lock:
            self._held.discard(target)

    def say(self, what: str) -> None:
        """Note something, and when it was."""
        self.history.append(f"{time.monotonic() - self._started:7.1f} s  {what}")
        self.tell(self.history[-1])

    def _missing(self, now: float) -> bool:
        return now < self._started + self.seconds * PATIENCE and any(
            self.struck[fault.kind] < self.at_least for fault in self.faults
        )

    def _next(self, chance: random.Random) -> Fault | None:
        """Return the next of the round that is ready and whose target is free, and hold that."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= AT_ONCE:
            return None
        if not self._round:
            # After the time is over, only what is missing.
            late = time.monotonic() > self._started + self.seconds
            self._round = [fault for fault in self.faults if not late or self.struck[fault.kind] < self.at_least]
            chance.shuffle(self._round)
        for fault in self._round:
            if fault.ready() and self.hold(fault.target):
                self._round.remove(fault)
                return fault
        return None

    def _strike(self, fault: Fault, chance: random.Random) -> None:
        thread = threading.Thread(target=self._run, args=(fault, chance), name=fault.kind, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, fault: Fault, chance: random.Random) -> None:
        seconds = chance.uniform(*fault.seconds) * self.pace.scale
        try:
            self.say(f"{fault.kind}, for {seconds:.1f} s")
            end = fault.strike(chance)
            time.sleep(seconds)
            met = end()
            self.struck[fault.kind] += met > 0
            self.say(f"{fault.kind} ended" + ("" if met else ", and met nothing"))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the run is waited for
            self.say(f"{fault.kind} failed: {error!r:.300}")
            self.failures.append(error)
        finally:
            self.release(fault.target)
