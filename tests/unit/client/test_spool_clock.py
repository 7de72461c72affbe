"""The clock of a spool: no step of the calendar empties it or keeps anything waiting, a week of uptime does expire.

Each test injects what the device has: a calendar (Unix seconds), and an uptime with the boot that it belongs to.
"""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest

from amser.client import spool as spool_module
from amser.client import spool_clock
from amser.client.exchange.utterances import Utterance
from amser.client.spool import CLOCK_ALONE_S, CLOCK_WITHIN_S, Spool, SpoolLimits
from amser.client.spool_clock import SpoolClock, Uptime, uptime
from amser.client.spool_view import APPLICATION_ID, SpoolError, SpoolView

WEEK_S: Final = 7 * 86_400.0
NTP = datetime(2026, 11, 27, tzinfo=UTC).timestamp()


class Machine:
    """A device: its calendar, its boots, and the spool that it opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calendar, self.boot, self.up_s = 10.0, 1, 10.0  # without a battery: 1970

    def uptime(self) -> Uptime:
        return Uptime(f"boot {self.boot}", self.up_s)

    def spool(self, limits: SpoolLimits = SpoolLimits()) -> Spool:  # noqa: B008 - frozen
        return Spool(self.path, limits, clock=lambda: self.calendar, uptime=self.uptime)

    def passes(self, seconds: float) -> None:
        self.calendar += seconds
        self.up_s += seconds

    def reboots(self, off_s: float = 0.0, calendar: float | None = None) -> None:
        self.boot, self.up_s = self.boot + 1, 5.0
        self.calendar = self.calendar + off_s if calendar is None else calendar

    def speaks(self, spool: Spool) -> UUID:
        spoken = Utterance(os.urandom(100), uuid4(), 1.0, 1.5)
        spool.put(spoken, datetime.fromtimestamp(self.calendar, UTC))
        return spoken.utterance_id


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "call.spool")


def left(spool: Spool) -> list[UUID]:
    spool.expire()
    return [each.utterance_id for each in spool.waiting()]


# --- Ages -------------------------------------------------------------------------------------------------------------


def test_captured_in_1970_nothing_expires_when_ntp_sets_the_clock(machine: Machine) -> None:
    with machine.spool() as spool:
        spoken = machine.speaks(spool)
        machine.calendar = NTP
        assert left(spool) == [spoken]
        machine.passes(WEEK_S - 1)
        assert left(spool) == [spoken]
        machine.passes(2)
        assert left(spool) == []
        assert [(each.reason, each.count, each.last_at) for each in spool.drops()] == [("age", 1, NTP + WEEK_S + 1)]


def test_a_clock_that_is_set_back_makes_nothing_live_longer(machine: Machine) -> None:
    machine.calendar = NTP
    with machine.spool() as spool:
        machine.speaks(spool)
        machine.calendar = 0.0
        machine.passes(WEEK_S + 1)
        assert left(spool) == []


def test_time_passes_while_no_process_has_the_spool_open(machine: Machine) -> None:
    with machine.spool() as spool:
        spoken = machine.speaks(spool)
    machine.passes(WEEK_S - 1)
    with machine.spool() as spool:
        assert left(spool) == [spoken]
    machine.passes(2)
    with machine.spool() as spool:
        assert left(spool) == []


def test_after_a_reboot_age_goes_on_from_what_was_counted_before(machine: Machine) -> None:
    with machine.spool() as spool:
        spoken = machine.speaks(spool)
        machine.passes(4 * 86_400)
        machine.speaks(spool)  # a transaction, which takes the clock along
    machine.reboots(off_s=90 * 86_400)
    with machine.spool() as spool:
        assert spoken in left(spool)  # 90 days in a drawer count for nothing
        machine.passes(3 * 86_400 - 1)
        assert spoken in left(spool)
        machine.passes(2)
        assert spoken not in left(spool)
        assert len(left(spool)) == 1


def test_the_clock_in_1970_again_after_a_reboot_expires_nothing_and_drops_the_oldest_first(machine: Machine) -> None:
    machine.calendar = NTP
    with machine.spool() as spool:
        machine.speaks(spool)
        second = machine.speaks(spool)
    machine.reboots(calendar=5.0)
    with machine.spool(SpoolLimits(max_count=2)) as spool:
        third = machine.speaks(spool)
        assert left(spool) == [second, third]


def test_a_power_cut_loses_no_more_age_than_was_not_yet_stored(machine: Machine) -> None:
    with machine.spool() as spool:
        machine.speaks(spool)
        for _ in range(8):  # a day; nothing is put, and a watch looks for what is too old
            machine.passes(3 * 3600)
            spool.expire()
    machine.reboots()
    with machine.spool() as spool:
        machine.passes(WEEK_S - 86_400 + 1)
        assert left(spool) == []


def test_the_clock_is_written_seldom(machine: Machine) -> None:
    with machine.spool() as spool:
        before = spool._db.total_changes
        for _ in range(int(CLOCK_ALONE_S) - 1):
            machine.passes(1)
            spool.expire()
        assert spool._db.total_changes == before
        machine.passes(2)
        spool.expire()
        assert spool._db.total_changes > before


def test_a_spool_that_is_opened_again_and_again_in_one_boot_writes_no_clock(machine: Machine) -> None:
    machine.spool().close()
    content = machine.path.read_bytes()
    for _ in range(10):
        machine.passes(CLOCK_WITHIN_S)
        machine.spool().close()
    assert machine.path.read_bytes() == content


def test_an_uptime_that_went_back_in_one_boot_neither_expires_nor_stops_the_clock(machine: Machine) -> None:
    """A virtual machine that was restored from a snapshot."""
    machine.up_s = 1e6
    with machine.spool() as spool:
        spoken = machine.speaks(spool)
    machine.up_s = 100.0
    with machine.spool() as spool:
        assert left(spool) == [spoken]
        machine.passes(WEEK_S + 1)
        assert left(spool) == []


# --- Waits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calendar", [NTP, 0.0, -1e9])
def test_a_wait_is_as_long_as_it_was_whatever_the_calendar_does(machine: Machine, calendar: float) -> None:
    with machine.spool() as spool:
        spool.postpone(machine.speaks(spool), 60)
        machine.calendar = calendar
        machine.passes(59)
        assert (spool.due(16), spool.next_due_s()) == ([], 1.0)
        machine.passes(1)
        assert (len(spool.due(16)), spool.next_due_s()) == (1, 0.0)


def test_what_is_left_of_a_wait_goes_on_after_a_reboot(machine: Machine) -> None:
    with machine.spool() as spool:
        spoken = machine.speaks(spool)
        machine.passes(100)
        spool.postpone(spoken, 3600)
    machine.reboots(calendar=0.0)
    with machine.spool() as spool:
        assert spool.next_due_s() == 3600
        machine.passes(3600)
        assert len(spool.due(16)) == 1


# --- Spools of version 1 ----------------------------------------------------------------------------------------------

VERSION_1 = f"""
CREATE TABLE waiting (
    position INTEGER PRIMARY KEY, utterance_id TEXT NOT NULL UNIQUE, captured_at REAL NOT NULL, seconds REAL NOT NULL,
    device_ms REAL NOT NULL, bytes INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, note TEXT NOT NULL, envelope BLOB NOT NULL);
CREATE INDEX oldest ON waiting (captured_at, bytes);
CREATE TABLE results (
    utterance_id TEXT PRIMARY KEY, captured_at REAL NOT NULL, seconds REAL NOT NULL, bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL, settled_at REAL NOT NULL, answer TEXT, failure TEXT, note TEXT NOT NULL,
    CHECK ((answer IS NULL) <> (failure IS NULL)));
CREATE TABLE drops (
    reason TEXT PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL,
    last_at REAL NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""
OLD = [UUID(int=number) for number in range(1, 5)]
ENVELOPES = [os.urandom(3000) for _ in OLD]


@pytest.fixture
def version_1(machine: Machine) -> Machine:
    """Three that wait, captured in 1970, due a minute ago, in a minute, and after a clock was set back; a result."""
    machine.calendar = NTP
    with sqlite3.connect(machine.path) as database:
        database.executescript(VERSION_1)
        for number, not_before in enumerate([NTP - 60, NTP + 60, NTP + 1e9]):
            row = (str(OLD[number]), 10.0 + number, 3000, 2, not_before, f"note {number}", ENVELOPES[number])
            database.execute(
                "INSERT INTO waiting (utterance_id, captured_at, seconds, device_ms, bytes, attempts, not_before, note,"
                " envelope) VALUES (?, ?, 1.0, 1.5, ?, ?, ?, ?, ?)",
                row,
            )
        refused = (str(OLD[3]), 5.0, 1.0, 3000, 1, 6.0, None, "400 Bad Request", "note 3")
        database.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", refused)
        database.execute("INSERT INTO drops VALUES ('count', 7, 700, 7.0, 6.0)")
    database.close()
    return machine


def test_a_spool_of_version_1_loses_nothing(version_1: Machine) -> None:
    with SpoolView(version_1.path) as view:  # a reader changes nothing, and reads it all the same
        before = (view.waiting(), view.results(), view.drops())
    with version_1.spool() as spool:
        spool.expire()
        assert (spool.waiting(), spool.results(), spool.drops()) == before
        assert [each.utterance_id for each in spool.waiting()] == OLD[:3]
        assert [spool.utterance(each).envelope for each in OLD[:3]] == ENVELOPES[:3]  # type: ignore[union-attr]
        assert [each.utterance_id for each in spool.due(16)] == [OLD[0], OLD[2]]
        version_1.passes(60)
        assert len(spool.due(16)) == 3
        version_1.passes(WEEK_S)
        assert left(spool) == []
    with version_1.spool() as spool:  # migrated once
        assert [(each.reason, each.count) for each in spool.drops()] == [("age", 3), ("count", 7)]


def test_a_migration_that_fails_half_way_leaves_version_1(version_1: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = spool_module._FROM_VERSION_1.replace("PRAGMA user_version", "INSERT INTO nowhere VALUES (1); PRAGMA x")
    with monkeypatch.context() as patched:
        patched.setattr(spool_module, "_FROM_VERSION_1", script)
        with pytest.raises(SpoolError, match="no such table: nowhere"):
            version_1.spool()
    with sqlite3.connect(version_1.path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM waiting").fetchone() == (3,)
    database.close()
    with version_1.spool() as spool:
        assert len(left(spool)) == 3


# --- The device's own uptime ------------------------------------------------------------------------------------------


def test_the_uptime_of_this_machine_goes_on_within_one_boot() -> None:
    first = uptime()
    time.sleep(0.05)
    second = uptime()
    assert second.boot == first.boot
    assert 0.05 <= second.seconds - first.seconds < 30


def test_without_a_boot_id_a_boot_goes_by_its_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS: a step of the calendar looks like a new boot, and what has been counted stays."""
    monkeypatch.setattr(spool_clock, "BOOT_ID", tmp_path / "nothing")
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    monkeypatch.setattr(time, "time", lambda: 60.0)
    before = uptime()
    assert before.seconds == 50.0
    monkeypatch.setattr(time, "time", lambda: NTP)
    after = uptime()
    assert after.boot != before.boot
    clock = SpoolClock((1000.0, before), lambda: after)
    assert (clock.now(), clock.is_stored) == (1000.0, False)
    monkeypatch.setattr(time, "monotonic", lambda: 80.0)
    monkeypatch.setattr(time, "time", lambda: NTP + 30)
    assert uptime().boot == after.boot
    assert SpoolClock((1000.0, after), uptime).now() == 1030.0
