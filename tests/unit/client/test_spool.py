"""The spool: what it keeps, what it drops and says so, and that nothing is lost or stored twice at any moment."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from stand_in import ANSWER

from amser.client.exchange.answer import Answer, Word
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool, SpoolLimits
from amser.client.spool_clock import Uptime
from amser.client.spool_view import SpoolDamaged, SpoolError, SpoolInUse, SpoolView

NOW = datetime(2025, 11, 22, 1, 2, 3, tzinfo=UTC).timestamp()
THE_ANSWER = Answer(
    "happy", {"happy": 0.85}, 0.85, ("short",), "Good morning.", "en", 100, 32_000, 1.5, 40.25, 1, {"asr": 31.0},
    ("text",), ANSWER, words=(Word("Good", 0.1, 0.4, 0.98), Word("morning.", 0.4, 0.9, 0.7)),
)  # fmt: skip


class Clock:
    """A time that the test sets: a calendar, and an uptime beside it."""

    now = NOW

    def __call__(self) -> float:
        return self.now

    def uptime(self) -> Uptime:
        return Uptime("this boot", self.now - NOW + 30.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "call.spool"


@pytest.fixture
def spool(path: Path, clock: Clock) -> Iterator[Spool]:
    with Spool(path, clock=clock, uptime=clock.uptime) as opened:
        yield opened


def utterance(size: int = 100, seconds: float = 1.0) -> Utterance:
    return Utterance(os.urandom(size), uuid4(), seconds, 1.5)


def fill(spool: Spool, *sizes: int, first_at: float = NOW) -> list[Utterance]:
    """Utterances of these sizes, captured a second after each other."""
    spoken = [utterance(size) for size in sizes]
    for second, each in enumerate(spoken):
        spool.put(each, datetime.fromtimestamp(first_at + second, UTC))
    return spoken


def ids(spool: SpoolView) -> list[object]:
    return [each.utterance_id for each in spool.waiting()]


# --- Keeping ----------------------------------------------------------------------------------------------------------


def test_what_was_put_is_there_when_the_spool_is_opened_again(path: Path) -> None:
    spoken = utterance()
    captured_at = datetime(2025, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
    clock = Clock()
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        spool.put(spoken, captured_at, "call.wav")
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        (waiting,) = spool.due(16)
        assert spool.utterance(spoken.utterance_id) == spoken
    assert (waiting.utterance_id, waiting.bytes, waiting.seconds) == (spoken.utterance_id, 100, 1.0)
    assert datetime.fromtimestamp(waiting.captured_at, UTC) == captured_at
    assert (waiting.attempts, waiting.not_before, waiting.note) == (0, 0.0, "call.wav")


def test_what_was_put_first_is_due_first_whatever_the_calendar_said(spool: Spool) -> None:
    first, second = utterance(), utterance()
    spool.put(first, datetime.fromtimestamp(NOW, UTC))
    spool.put(second, datetime.fromtimestamp(0, UTC))  # the device was switched on again, and NTP has not come yet
    assert [each.utterance_id for each in spool.due(1)] == [first.utterance_id]
    assert ids(spool) == [first.utterance_id, second.utterance_id]


def test_one_that_is_postponed_is_not_due_before_its_time(spool: Spool, clock: Clock) -> None:
    first, second = fill(spool, 100, 100)
    spool.postpone(first.utterance_id, 30)
    assert [each.utterance_id for each in spool.due(16)] == [second.utterance_id]
    spool.postpone(second.utterance_id, 40)
    assert (spool.due(16), spool.next_due_s()) == ([], 30)
    clock.now += 30
    (due,) = spool.due(16)
    assert (due.utterance_id, due.attempts, spool.next_due_s()) == (first.utterance_id, 1, 0)


def test_an_utterance_that_is_put_twice_waits_once_and_one_with_a_result_not_at_all(spool: Spool) -> None:
    (spoken,) = fill(spool, 100)
    spool.put(spoken, datetime.fromtimestamp(NOW, UTC))
    assert len(spool.waiting()) == 1
    spool.settle(spoken.utterance_id, THE_ANSWER)
    spool.put(spoken, datetime.fromtimestamp(NOW, UTC))
    assert (spool.waiting(), len(spool.results())) == ([], 1)


def test_the_files_are_for_their_owner_alone(path: Path, spool: Spool) -> None:
    fill(spool, 100)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes.pop("call.spool-lock") == 0o600
    assert set(modes.values()) == {0o600}


# --- Results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_read_back_as_it_was_stored(spool: Spool, path: Path) -> None:
    (spoken,) = fill(spool, 100)
    spool.postpone(spoken.utterance_id, 0)
    stored = spool.settle(spoken.utterance_id, THE_ANSWER)
    assert spool.waiting() == []
    with SpoolView(path) as view:
        (result,) = view.results()
    assert result == stored
    assert (result.answer, result.failure, result.attempts, result.settled_at) == (THE_ANSWER, None, 2, NOW)


def test_a_result_of_version_0_4_is_read(spool: Spool, path: Path) -> None:
    (spoken,) = fill(spool, 100)
    spool.settle(spoken.utterance_id, THE_ANSWER)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE results SET answer = json_remove(answer, '$.confidence', '$.doubts')")
    (result,) = spool.results()
    assert result.answer == replace(THE_ANSWER, doubts=())


def test_that_nobody_spoke_is_read_back(spool: Spool) -> None:
    (spoken,) = fill(spool, 100)
    nobody = replace(THE_ANSWER, emotion=None, speech="none", speech_probability=0.02, warnings=("language_mismatch",))
    spool.settle(spoken.utterance_id, nobody)
    (result,) = spool.results()
    assert result.answer == nobody


def test_a_result_that_does_not_say_whether_somebody_speaks_is_read(spool: Spool, path: Path) -> None:
    (spoken,) = fill(spool, 100)
    spool.settle(spoken.utterance_id, THE_ANSWER)
    with sqlite3.connect(path) as database:
        added = "'$.speech', '$.speech_probability', '$.warnings', '$.words'"
        database.execute(f"UPDATE results SET answer = json_remove(answer, {added})")
    (result,) = spool.results()
    assert result.answer == replace(THE_ANSWER, words=())


def test_one_that_is_refused_for_good_is_kept_with_the_reason(spool: Spool) -> None:
    (spoken,) = fill(spool, 100)
    spool.refuse(spoken.utterance_id, "400 Bad Request")
    (result,) = spool.results()
    assert (spool.waiting(), result.answer, result.failure) == ([], None, "400 Bad Request")


def test_a_second_answer_changes_nothing(spool: Spool) -> None:
    (spoken,) = fill(spool, 100)
    spool.settle(spoken.utterance_id, THE_ANSWER)
    before = spool.results()
    assert spool.settle(spoken.utterance_id, THE_ANSWER) is None
    assert spool.refuse(spoken.utterance_id, "too late") is None
    assert spool.results() == before


def test_an_exchange_that_fails_half_way_leaves_the_utterance_waiting(spool: Spool) -> None:
    (spoken,) = fill(spool, 100)
    spool._db.execute("CREATE TRIGGER fault BEFORE DELETE ON waiting BEGIN SELECT raise(FAIL, 'no more'); END")
    with pytest.raises(SpoolError, match="no more"):
        spool.settle(spoken.utterance_id, THE_ANSWER)
    assert (ids(spool), spool.results()) == ([spoken.utterance_id], [])


KILLED_AT_EACH_STATEMENT = """
import json, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

for number, at in enumerate(["BEGIN", "INSERT", "DELETE", "COMMIT", "afterwards"]):
    path, key = Path(sys.argv[1]) / f"{number}.spool", UUID(int=number)
    with Spool(path) as spool:
        spool.put(Utterance(b"speech", key, 1.0, 1.0), datetime.now(UTC))
    if (child := os.fork()) == 0:
        spool = Spool(path)
        spool._db.set_trace_callback(lambda statement: die() if statement.startswith(at) else None)
        spool.refuse(key, "400")
        die()
    _, status = os.waitpid(child, 0)
    with Spool(path) as spool:
        print(json.dumps([at, os.WTERMSIG(status), len(spool.waiting()), len(spool.results())]), flush=True)
"""


def test_killed_at_any_statement_an_utterance_either_waits_or_has_its_result(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_EACH_STATEMENT, str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    killed = signal.SIGKILL
    before = [[at, killed, 1, 0] for at in ("BEGIN", "INSERT", "DELETE", "COMMIT")]
    assert [json.loads(line) for line in lines] == [*before, ["afterwards", killed, 0, 1]]


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_beyond_the_count_the_oldest_go_and_are_counted(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limits = SpoolLimits(max_count=3)
    with caplog.at_level(logging.WARNING), Spool(path, limits, clock=clock, uptime=clock.uptime) as spool:
        spoken = fill(spool, 100, 110, 120, 130, 140)
        assert ids(spool) == [each.utterance_id for each in spoken[2:]]
    with SpoolView(path) as view:
        (dropped,) = view.drops()
    assert (dropped.reason, dropped.count, dropped.bytes, dropped.seconds) == ("count", 2, 210, 2.0)
    assert dropped.last_at == NOW
    assert caplog.messages == [f"{path}: dropped 1 (1.0 s of speech): the limit of count was passed"] * 2


def test_beyond_the_bytes_as_few_of_the_oldest_go_as_make_room(path: Path, clock: Clock) -> None:
    with Spool(path, SpoolLimits(max_bytes=1000), clock=clock, uptime=clock.uptime) as spool:
        spoken = fill(spool, 300, 300, 400)
        assert len(ids(spool)) == 3
        (late,) = fill(spool, 500, first_at=NOW + 10)
        assert ids(spool) == [spoken[2].utterance_id, late.utterance_id]
        assert [(each.reason, each.count, each.bytes) for each in spool.drops()] == [("bytes", 2, 600)]


def test_one_that_would_never_fit_makes_no_other_go(path: Path, clock: Clock) -> None:
    with Spool(path, SpoolLimits(max_bytes=1000), clock=clock, uptime=clock.uptime) as spool:
        (kept,) = fill(spool, 300)
        fill(spool, 1001)
        assert ids(spool) == [kept.utterance_id]
        assert [(each.reason, each.count, each.bytes) for each in spool.drops()] == [("bytes", 1, 1001)]


def test_what_is_too_old_goes(path: Path, clock: Clock) -> None:
    with Spool(path, SpoolLimits(max_age_s=60), clock=clock, uptime=clock.uptime) as spool:
        fill(spool, 100)
        clock.now += 1
        (second,) = fill(spool, 100)
        clock.now += 59
        spool.expire()
        assert len(ids(spool)) == 2
        clock.now += 0.5
        spool.expire()
        assert ids(spool) == [second.utterance_id]
        assert [(each.reason, each.count) for each in spool.drops()] == [("age", 1)]


def test_results_are_bounded_too(path: Path, clock: Clock) -> None:
    with Spool(path, SpoolLimits(max_results=2), clock=clock, uptime=clock.uptime) as spool:
        spoken = fill(spool, 100, 100, 100)
        for each in spoken:
            spool.settle(each.utterance_id, THE_ANSWER)
        assert [each.utterance_id for each in spool.results()] == [each.utterance_id for each in spoken[1:]]
        assert [(each.reason, each.count) for each in spool.drops()] == [("results", 1)]


def test_a_limit_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_count is 0"):
        SpoolLimits(max_count=0)


# --- Ownership and damage ---------------------------------------------------------------------------------------------


def test_a_second_owner_is_told_who_has_it_and_what_to_do(spool: Spool, path: Path) -> None:
    with pytest.raises(SpoolInUse, match=rf"in use by process {os.getpid()}\. Wait until it ends, or name another"):
        Spool(path)
    spool.close()
    Spool(path).close()


def test_a_second_owner_may_wait(spool: Spool, path: Path) -> None:
    threading.Timer(0.2, spool.close).start()
    started = time.monotonic()
    Spool(path, wait_s=10).close()
    assert 0.1 < time.monotonic() - started < 5


def test_a_reader_sees_what_the_owner_wrote(spool: Spool, path: Path) -> None:
    fill(spool, 100)
    with SpoolView(path) as view:
        assert len(view.waiting()) == 1
        fill(spool, 100)
        assert len(view.waiting()) == 2


def test_threads_may_share_a_spool(path: Path) -> None:
    clock = Clock()
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        threads = [threading.Thread(target=fill, args=(spool, *[100] * 10)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(spool.waiting()) == 40


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"no database at all" * 300)
    for opened in (Spool, SpoolView):
        with pytest.raises(SpoolDamaged, match="is damaged: .*left as it is: move it away.*recover"):
            opened(path)
    assert path.read_bytes() == b"no database at all" * 300


def test_a_spool_with_damaged_pages_is_refused_and_left_as_it_is(path: Path, clock: Clock) -> None:
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        fill(spool, *[2000] * 20)
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 4] = os.urandom(4096 * 3)
    path.write_bytes(content)
    with pytest.raises(SpoolDamaged, match="is damaged"):
        Spool(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("column", "value"),
    [("answer", "{"), ("answer", '{"confidence": 1}'), ("answer", "5"), ("utterance_id", "no id"), ("utterance_id", 7)],
)
def test_a_row_that_the_disk_has_changed_makes_a_damaged_spool(
    path: Path, clock: Clock, column: str, value: object
) -> None:
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        fill(spool, 2000)
        spool.settle(spool.waiting()[0].utterance_id, THE_ANSWER)
        assert len(spool.results()) == 1
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE results SET {column} = ?", (value,))
    database.close()
    with SpoolView(path) as view, pytest.raises(SpoolDamaged, match="a row cannot be read.*left as it is"):
        view.results()


def test_a_wait_that_the_disk_has_changed_makes_a_damaged_spool(path: Path, clock: Clock) -> None:
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        fill(spool, 2000)
        spool._db.execute("UPDATE waiting SET due_at = 'soon', utterance_id = 'none'")
        with pytest.raises(SpoolDamaged, match="a row cannot be read"):
            spool.next_due_s()
        with pytest.raises(SpoolDamaged, match="a row cannot be read"):
            spool.waiting()


def test_a_result_that_is_not_found_where_it_was_stored_makes_a_damaged_spool(path: Path, clock: Clock) -> None:
    """As where the disk has changed an index. The utterance still waits."""
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        fill(spool, 2000)
        waiting = spool.waiting()
        spool._db.execute("CREATE TRIGGER lost AFTER INSERT ON results BEGIN DELETE FROM results; END")
        with pytest.raises(SpoolDamaged, match="a row cannot be read"):
            spool.refuse(waiting[0].utterance_id, "422 Unprocessable")
        assert spool.waiting() == waiting


def test_a_spool_whose_schema_is_no_text_any_more_is_damaged(path: Path, clock: Clock) -> None:
    """SQLite quotes the file in its message, which Python then cannot read."""
    with Spool(path, clock=clock, uptime=clock.uptime) as spool:
        fill(spool, 2000)
        spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE waiting", b"\xffREATE TABLE waiting"))
    with pytest.raises(SpoolDamaged, match="is damaged"):
        Spool(path)


def test_the_database_of_another_program_is_not_touched(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (it)")
    database.close()
    content = path.read_bytes()
    with pytest.raises(SpoolDamaged, match="is a database, but no spool"):
        Spool(path)
    assert path.read_bytes() == content


def test_a_view_makes_no_spool(path: Path) -> None:
    with pytest.raises(SpoolError, match="there is no spool at"):
        SpoolView(path)
    assert not path.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"gone/call\.spool cannot be made: No such file or directory"):
        Spool(tmp_path / "gone" / "call.spool")


def test_a_full_disk_loses_nothing_that_waits(spool: Spool) -> None:
    (kept,) = fill(spool, 100)
    ((pages,),) = spool._db.execute("PRAGMA page_count").fetchall()
    spool._db.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(SpoolError, match="no room left on its disk"):
        fill(spool, 100_000)
    spool._db.execute("PRAGMA max_page_count = 100000").fetchall()
    fill(spool, 100_000)
    assert (len(ids(spool)), ids(spool)[0]) == (2, kept.utterance_id)
