"""The stores of answers: what they keep, for how long, how much, who shares it, and what happens when they break."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.drills.redis_server import RedisServer
from deployments.gateway.answer_store import EmbeddedStore, RedisStore, StoreUnavailable, answer_store
from deployments.settings import IdempotencySettings

TTL_S = 60.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def embedded(folder: Path, clock: Clock, max_answers: int = 100, max_bytes: int = 10_000) -> EmbeddedStore:
    return EmbeddedStore(folder, ttl_s=TTL_S, max_answers=max_answers, max_bytes=max_bytes, clock=clock)


async def kept(store: EmbeddedStore, count: int) -> list[int]:
    return [number for number in range(count) if await store.get(bytes([number])) is not None]


# --- Embedded ---------------------------------------------------------------------------------------------------------


async def test_what_was_put_first_is_kept_and_shared_by_the_replicas_of_a_node(folder: Path, clock: Clock) -> None:
    first, second = embedded(folder, clock), embedded(folder, clock)
    await first.put(b"key", b"answer")
    await second.put(b"key", b"another")
    assert (await second.get(b"key"), await first.get(b"other")) == (b"answer", None)
    first.close()
    second.close()
    assert await embedded(folder, clock).get(b"key") == b"answer"


async def test_an_answer_goes_after_its_time_and_is_overwritten(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock)
    await store.put(b"key", b"what was said to a doctor")
    clock.now += TTL_S
    assert await store.get(b"key") == b"what was said to a doctor"
    clock.now += 1
    assert await store.get(b"key") is None
    assert store.expire() == 0
    store.close()  # checkpoints
    assert b"said to a doctor" not in (folder / "answers.sqlite").read_bytes()
    store = embedded(folder, clock)
    await store.put(b"key", b"anew")
    assert await store.get(b"key") == b"anew"


async def test_what_an_earlier_boot_left_is_too_old(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock)
    await store.put(b"key", b"answer")
    clock.now = 10.0
    assert await store.get(b"key") is None
    await store.put(b"key", b"anew")
    assert await store.get(b"key") == b"anew"


async def test_beyond_the_count_the_oldest_go(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock, max_answers=3)
    for number in range(7):
        await store.put(bytes([number]), b"answer")
    assert await kept(store, 7) == [4, 5, 6]


async def test_beyond_the_bytes_as_few_of_the_oldest_go_as_make_room(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock, max_bytes=1000)
    for number, size in enumerate([400, 300, 300]):
        await store.put(bytes([number]), b"x" * size)
    assert await kept(store, 3) == [0, 1, 2]
    await store.put(bytes([3]), b"x" * 500)
    assert await kept(store, 4) == [2, 3]
    await store.put(bytes([4]), b"x" * 1001)
    assert await kept(store, 5) == [2, 3]


async def test_the_file_stays_small_under_many_answers(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock, max_answers=10**6, max_bytes=200_000)
    for _ in range(2000):
        await store.put(os.urandom(32), os.urandom(2000))
    store.close()
    assert (folder / "answers.sqlite").stat().st_size < 500_000


async def test_the_files_are_for_this_user_alone(folder: Path, clock: Clock) -> None:
    store = embedded(folder, clock)
    await store.put(b"key", b"answer")
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_read_is_refused(folder: Path, clock: Clock) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(StoreUnavailable, match="not a folder of this user alone"):
        embedded(folder, clock)


def test_a_link_to_somebody_elses_folder_is_refused(folder: Path, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreUnavailable, match="not a folder of this user alone"):
        embedded(folder, clock)


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"SQLite format 3\0" + bytes(5000)])
async def test_a_damaged_file_is_begun_anew(folder: Path, clock: Clock, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "answers.sqlite").write_bytes(content)
    store = embedded(folder, clock)
    await store.put(b"key", b"answer")
    assert await store.get(b"key") == b"answer"


async def test_a_file_whose_schema_is_no_text_any_more_is_begun_anew(folder: Path, clock: Clock) -> None:
    """SQLite quotes the file in its message, which Python then cannot read."""
    store = embedded(folder, clock)
    await store.put(b"key", b"before")
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    path = folder / "answers.sqlite"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE answers", b"\xffREATE TABLE answers"))
    store = embedded(folder, clock)
    await store.put(b"key", b"anew")
    assert await store.get(b"key") == b"anew"


async def test_while_another_process_writes_an_answer_is_not_kept_and_nothing_waits_for_it(
    folder: Path, clock: Clock
) -> None:
    store, other = embedded(folder, clock), embedded(folder, clock)
    await store.put(b"first", b"answer")
    other._db.execute("BEGIN IMMEDIATE")
    started = time.perf_counter()
    await store.put(b"second", b"answer")
    assert time.perf_counter() - started < 1
    assert await store.get(b"first") == b"answer"
    other._db.execute("ROLLBACK")
    await store.put(b"second", b"answer")
    assert await store.get(b"second") == b"answer"


# --- Settings ---------------------------------------------------------------------------------------------------------


async def test_the_settings_choose_the_store(folder: Path) -> None:
    assert answer_store(IdempotencySettings(store="none")) is None
    assert isinstance(answer_store(IdempotencySettings(folder=folder)), EmbeddedStore)
    url = "redis://:secret@127.0.0.1:6379/0"
    settings = IdempotencySettings.model_validate({"store": "redis", "redis_url": url})
    assert isinstance(answer_store(settings), RedisStore)
    assert "secret" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("settings", [{"store": "redis"}, {"redis_url": "redis://127.0.0.1"}])
def test_redis_needs_its_address_and_no_other_store_has_one(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="redis_url belongs to the store redis"):
        IdempotencySettings.model_validate(settings)


# --- Redis ------------------------------------------------------------------------------------------------------------


async def test_redis_keeps_what_was_put_first_for_all_gateways_and_for_its_time(redis_server: RedisServer) -> None:
    first, second = RedisStore(redis_server.url, ttl_s=2), RedisStore(redis_server.url, ttl_s=2)
    await first.put(b"key", b"answer")
    await second.put(b"key", b"another")
    assert (await second.get(b"key"), await second.get(b"other")) == (b"answer", None)
    ends_at = time.monotonic() + 20
    while await first.get(b"key") is not None:
        assert time.monotonic() < ends_at
        time.sleep(0.1)
    await first.close()
    await second.close()


async def test_a_redis_that_is_gone_is_told_at_once_and_one_that_is_back_is_used(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, ttl_s=60)
    await store.put(b"key", b"answer")
    redis_server.stop()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="Redis does not answer"):
        await store.get(b"key")
    assert time.monotonic() - started < 5
    redis_server.start()
    assert await store.get(b"key") is None
    await store.put(b"key", b"answer")
    assert await store.get(b"key") == b"answer"
    await store.close()
