"""The batch format: golden bytes, limits, and what is cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amser import batch, wire

GOLDEN = bytes.fromhex("04000000414d535200000000020000000001")


def test_a_batch_is_each_envelope_behind_its_length() -> None:
    assert batch.pack([b"AMSR", b"", b"\x00\x01"]) == GOLDEN
    assert batch.unpack(GOLDEN) == [b"AMSR", b"", b"\x00\x01"]


def test_real_envelopes_come_back_byte_for_byte() -> None:
    made = [
        wire.pack(
            wire.Envelope(
                codec="mel-f16",
                profile="whisper80",
                frames=frames,
                seconds=frames / 100,
                language="en",
                device_id="kitchen",
                utterance_id=UUID(int=frames),
                captured_at=datetime(2026, 1, 1, tzinfo=UTC),
                payload=bytes(160 * frames),
            )
        )
        for frames in (10, 30)
    ]
    assert batch.unpack(batch.pack(made)) == made


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=64))
def test_what_is_packed_is_unpacked(envelopes: list[bytes]) -> None:
    assert batch.unpack(memoryview(batch.pack(envelopes))) == envelopes


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_apart_or_refused(data: bytes) -> None:
    try:
        envelopes = batch.unpack(data)
    except wire.WireError:
        return
    assert batch.pack(envelopes) == data


@pytest.mark.parametrize("cut", [1, 3, len(GOLDEN) - 1])
def test_a_batch_that_is_cut_off_is_malformed(cut: int) -> None:
    with pytest.raises(wire.Malformed):
        batch.unpack(GOLDEN[:cut])


def test_an_empty_batch_is_malformed_on_both_sides() -> None:
    with pytest.raises(wire.Malformed):
        batch.unpack(b"")
    with pytest.raises(wire.Malformed):
        batch.pack([])


def test_a_length_beyond_the_body_reserves_nothing() -> None:
    with pytest.raises(wire.Malformed, match="claims 4294967295 bytes"):
        batch.unpack(b"\xff\xff\xff\xff" + bytes(8))


def test_too_many_envelopes_and_too_many_bytes_are_too_large() -> None:
    assert len(batch.unpack(batch.pack([b"x"] * 64))) == 64
    with pytest.raises(wire.TooLarge, match="more than 64 envelopes"):
        batch.unpack(batch.pack([b"x"] * 65))
    with pytest.raises(wire.TooLarge, match="5000 bytes"):
        batch.unpack(bytes(5000), batch.Limits(max_bytes=4999))


def test_many_envelopes_are_split_so_that_every_body_is_accepted() -> None:
    limits = batch.Limits(max_bytes=100, max_items=3)
    envelopes = [bytes(size) for size in (1, 1, 1, 1, 90, 10, 60, 60, 200, 1)]
    ranges = batch.split(envelopes, limits)
    assert [position for each in ranges for position in each] == list(range(len(envelopes)))
    assert [list(each) for each in ranges] == [[0, 1, 2], [3, 4], [5, 6], [7], [8], [9]]
    assert batch.split([], limits) == []
