"""One chaos run, and what is to be said of it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from devtools.processes import wait_until
from tests.chaos.arrangement import ITEMS, Arrangement
from tests.chaos.faults import every_fault
from tests.chaos.schedule import Pace, Schedule
from tests.chaos.writing import TABLES, DdlWriter, expected
from tests.harness.app import Rows, Writers, last_write
from tests.harness.deployment import Running
from tests.harness.proxy import Recording, check_finds_a_repeat, check_resumes, check_watermarks
from tests.harness.replicas import replica_rows

SETTLE_SECONDS = 180
REFUSED = "rejecting subscriber at watermark"
# A replica that zero-cache itself refuses is refused at every start; twice is enough to know it.
REFUSALS = 2
SHOWN = 5
FAR_BEHIND_SECONDS = 20
SLOW_PAUSE = 0.5


@dataclass
class Outcome:
    """What a run found; ``violations`` is empty where all is as promised."""

    seed: int
    seconds: float
    struck: dict[str, int]
    writes: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    resets: dict[str, int] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    logs: str = ""

    def table(self) -> str:
        """Everything in figures."""
        lines = [f"seed {self.seed}, {self.seconds:.0f} s of faults", "", "writes"]
        lines += [f"  {count:>8,}  {kind}" for kind, count in self.writes.items()]
        lines += ["", "faults"]
        lines += [f"  {count:>8}  {kind}" for kind, count in sorted(self.struck.items())]
        lines += ["", "longest pause of a replica"]
        lines += [f"  {seconds:>6.1f} s  {name}" for name, seconds in self.pauses.items()]
        lines += ["", "resets"]
        lines += [f"  {count:>8}  {what}" for what, count in self.resets.items()]
        lines += ["", "differences"]
        lines += [f"  {count:>8}  {name}" for name, count in self.differences.items()]
        return "\n".join(lines)

    def report(self) -> str:
        """What is wrong, and all that may say why."""
        parts = [*self.violations, "", *self.history, "", self.table(), "", self.logs]
        return "\n".join(parts)


class Run:
    """Strikes an arrangement for ``seconds``, every kind ``at_least`` times, and checks what has become of it.

    ``tell`` hears of each fault when it strikes and when it ends.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        seconds: float,
        at_least: int,
        pace: Pace,
        tell: Callable[[str], object] = str,
        only: str = "",
    ) -> None:
        """``only`` is a regular expression, for runs that look for one thing: the kinds that it finds."""
        self.place = Arrangement(directory)
        self.seed = seed
        self._seconds, self._at_least, self._pace = seconds, at_least, pace
        self._tell = tell
        self._only = only
        self._violations: list[str] = []
        self._refusals_mended = 0
        self._resyncs = 0
        self._schedule: Schedule
        self._writers: Writers
        self._held_back = 0.0
        self._last_care = time.monotonic()

    def run(self) -> Outcome:
        """Do all of it; every process has ended when this returns."""
        try:
            self.place.start()
            return self._run()
        finally:
            self.place.close()

    def _run(self) -> Outcome:
        place = self.place
        schedule = self._schedule = Schedule(
            [fault for fault in every_fault(place) if re.search(self._only, fault.kind)],
            self.seed,
            self._seconds,
            self._at_least,
            self._pace,
            self._tell,
        )
        began = time.monotonic()
        uri, name = place.mongodb.uri, place.database.name
        writers = self._writers = Writers(uri, name, threads=3, seed=self.seed, items=ITEMS, patient=True)
        ddl = DdlWriter(uri, name, self.seed)
        with writers, ddl:
            self._attempt("the faults", lambda: schedule.run(self._care))
            seconds = time.monotonic() - began
            self._attempt("the recovery", self._recover)
            until = time.monotonic()
        outcome = Outcome(self.seed, seconds, dict(schedule.struck), history=schedule.history)
        outcome.writes = {**writers.counts, **{f"ddl: {act}": count for act, count in ddl.steps.items()}}
        outcome.writes["failed while MongoDB was away"] = writers.faults
        outcome.writes["seconds in which writers were held back"] = round(self._held_back)
        self._attempt("the last write", self._settle)
        self._compare(outcome)
        self._check_wire(outcome, began, until)
        self._check_faults(outcome)
        self._check_logs(outcome)
        outcome.violations = self._violations
        return outcome

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        """Go on where this fails, so that all is told."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - told as a violation
            self._violations.append(f"{what}: {error!r:.3000}")

    def _care(self) -> None:
        """What an operator and a supervisor do meanwhile."""
        place, schedule = self.place, self._schedule
        if place.follower.failure is not None:
            raise place.follower.failure
        self._hold_writers_back()
        for number, server in enumerate(place.servers):
            if self._ended_by_itself(server):
                place.start_server(number)
        for number, watcher in enumerate(place.watchers):
            if self._ended_by_itself(watcher):
                place.start_watcher(number)
        if self._refusals() - self._refusals_mended >= REFUSALS and schedule.hold("zero-cache"):
            try:
                self._mend_zero_cache()
            finally:
                schedule.release("zero-cache")

    def _hold_writers_back(self) -> None:
        """Slow them down while a replica is far behind, or the oplog, which is short, would not reach back to it."""
        now, before = time.monotonic(), self._last_care
        self._last_care = now
        if self._writers.pause:
            self._held_back += now - before
        self._writers.pause = SLOW_PAUSE if self.place.lag() > FAR_BEHIND_SECONDS else 0

    def _ended_by_itself(self, process: Running) -> bool:
        """Whether one of ours did: it waits for what is away, and has nothing to end for."""
        code = process.exit_code
        if code is None or code == -signal.SIGKILL:
            return False
        self._violations.append(f"{process.args[2]} ended by itself with {code}. {process.log_tail(40)}")
        return True

    def _refusals(self) -> int:
        return self.place.cache.log_text().count(REFUSED)

    def _mend_zero_cache(self) -> None:
        """Take away a replica file that zero-cache itself refuses for good, as docs/limits.md says."""
        cache = self.place.cache
        cache.kill()
        cache.replica.close()
        for path in cache.directory.glob("replica.db*"):
            path.unlink()
        self._refusals_mended = self._refusals()
        self._resyncs += 1
        self._schedule.say(f"zero-cache refuses its own replica, which syncs anew. {self._why_refused()}")
        cache.start()

    def _why_refused(self) -> str:
        """Say what was sent of the watermark at which zero-cache refused its replica."""
        watermark = re.findall(REFUSED + r" (\S+)", self.place.cache.log_text())[-1]
        told = [
            f"after {one.last_watermark}: {'sent' if watermark in one.commits else 'passed over'}"
            for one in self.place.recorders["zero-cache"].connections
            if one.commits and one.last_watermark < watermark <= one.commits[-1]
        ]
        return f"Its watermark {watermark} was, {'; '.join(told)}"

    def _recover(self) -> None:
        """Wait until everything is as it was before the faults."""
        place = self.place

        def healthy() -> bool:
            self._care()
            return all(server.answers("/readyz") for server in place.servers) and place.cache.ready()

        wait_until(healthy, "everything to be well again", SETTLE_SECONDS, 0.5, detail=place.cache.log_tail)

    def _settle(self) -> None:
        place = self.place
        key = last_write(place.database, "note")

        def arrived() -> bool:
            self._care()
            model = place.follower.reader.model
            return key in replica_rows(place.cache, "note") and key in model.rows("note") and not model.open

        wait_until(arrived, "the last write to arrive everywhere", SETTLE_SECONDS, 0.5, detail=self._standing)
        # Tables that were filled anew after a reconnect show it before what led there has come once more; a stand that
        # does not come is told by the comparison.
        wanted = expected(place.database)
        with suppress(TimeoutError):
            wait_until(lambda: self._shows(wanted), "the same rows everywhere", SETTLE_SECONDS, 2)
        place.follower.stop()

    def _shows(self, wanted: dict[str, Rows]) -> bool:
        self._care()
        model = self.place.follower.reader.model
        if model.open:
            return False
        try:
            return not any(_differences(found, wanted) for found in self._found().values())
        except RuntimeError:
            return False  # the reader is just taking something

    def _found(self) -> dict[str, dict[str, Rows]]:
        """The rows of each replica."""
        model = self.place.follower.reader.model
        return {
            "zero-cache": {table: replica_rows(self.place.cache, table) for table in TABLES},
            "reader": {table: model.rows(table) if table in model.tables else {} for table in TABLES},
        }

    def _standing(self) -> str:
        place = self.place
        return f"reader at {place.follower.reader.last_watermark}. {place.cache.log_tail()}"

    # What is checked.

    def _compare(self, outcome: Outcome) -> None:
        wanted = expected(self.place.database)
        for name, found in self._found().items():
            differences = _differences(found, wanted)
            outcome.differences[f"{name} ({sum(map(len, wanted.values())):,} rows)"] = len(differences)
            self._violations += [f"{name}: {difference}" for difference in differences[:SHOWN]]

    def _check_wire(self, outcome: Outcome, began: float, until: float) -> None:
        for name, recorder in self.place.recorders.items():
            connections = recorder.connections
            told = sum(tag == "control" for one in connections for tag, _ in one.transactions)
            syncs = sum(bool(not one.last_watermark and one.transactions) for one in connections)
            outcome.resets[f"{name}: reset-required"] = told
            outcome.resets[f"{name}: initial syncs beyond the first"] = syncs - 1
            outcome.resets[f"{name}: times it came back"] = sum(bool(one.transactions) for one in connections) - 2
            outcome.pauses[name] = _longest_pause(connections, began, until)
            if told:
                self._violations.append(f"{name} was told to reset")
            if syncs > 1 and not (name == "zero-cache" and self._resyncs):
                self._violations.append(f"{name} synced {syncs} times")
            for check in (check_watermarks, check_resumes, check_finds_a_repeat):
                self._attempt(f"{check.__name__} of {name}", lambda check=check, seen=connections: check(seen))
        outcome.resets["zero-cache: refused its own replica"] = self._resyncs
        outcome.resets["zero-cache: exits"] = len(self.place.cache.exits)

    def _check_faults(self, outcome: Outcome) -> None:
        for fault in self._schedule.faults:
            count = outcome.struck.setdefault(fault.kind, 0)
            if count < self._at_least:
                self._violations.append(f"{fault.kind} struck {count} times")

    def _check_logs(self, outcome: Outcome) -> None:
        logs = self.place.logs()
        for name, text in logs.items():
            for wrong in ("Traceback", KEY_IN_LOG):
                if wrong in text:
                    at = text.index(wrong)
                    self._violations.append(f"{name} has {wrong}: {text[max(0, at - 500) : at + 3000]}")
        if self._violations:
            tails = {**logs, "zero-cache": self.place.cache.log_text()}
            outcome.logs = "\n".join(f"== {name}\n{text[-3000:]}" for name, text in tails.items())


KEY_IN_LOG = "chaos-key"


def _differences(found: dict[str, Rows], wanted: dict[str, Rows]) -> list[str]:
    """Return every difference, in words."""
    return [
        f"{table} {key}: {found[table].get(key)!s:.300} instead of {rows.get(key)!s:.300}"
        for table, rows in wanted.items()
        for key in rows.keys() | found[table].keys()
        if found[table].get(key) != rows.get(key)
    ]


def _longest_pause(connections: list[Recording], began: float, until: float) -> float:
    """Return the longest time without a commit between two moments."""
    commits = [
        moment
        for connection in connections
        for moment, (tag, _) in zip(connection.moments, connection.transactions, strict=False)
        if tag == "commit" and began < moment < until
    ]
    return max(later - earlier for earlier, later in pairwise([began, *sorted(commits), until]))
