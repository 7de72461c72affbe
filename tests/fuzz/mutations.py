"""Bytes → similar bytes that a parser may stumble over: numbers at their limits, pieces twice, elsewhere or missing."""

from __future__ import annotations

from random import Random
from typing import Any, Final, Literal

INTERESTING: Final = (
    0, 1, 2, 3, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 1000, 4096, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 48_000, 192_000,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF, 80_000_000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF,
)  # fmt: skip
WIDTHS: Final = (1, 2, 3, 4, 8)
LARGEST: Final = 65_536  # bytes that a mutation may have; a test sends more, in one piece


def mutate(data: bytes, source: Random, tokens: tuple[bytes, ...] = (), others: tuple[bytes, ...] = ()) -> bytes:
    """One to six changes.

    Args:
        data: to be changed.
        source: of randomness.
        tokens: pieces that the format has names for; a number beside one is changed more often than another.
        others: inputs to take pieces from.
    """
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3, 6))):
        _change(changed, source, tokens, others)
    return bytes(changed[: max(LARGEST, len(data))])


ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 10**400, 1e308, float("nan"), float("inf"), 2**63, "", "\ud800", "\0", "x" * 5000, [], {}, [[]],
    {"": None}, ["a", 1, None], "nan", "en", "happy",
)  # fmt: skip


def mutate_document(document: Any, source: Random) -> Any:
    """A JSON document with one of its values, at any depth, replaced by an odd one, left out or nested."""
    if isinstance(document, dict) and document and source.random() < 0.8:
        name = source.choice(sorted(document))
        others = {key: value for key, value in document.items() if key != name}
        if source.random() < 0.1:
            return others
        return others | {name: mutate_document(document[name], source)}
    if isinstance(document, list) and document and source.random() < 0.8:
        at = source.randrange(len(document))
        return [*document[:at], mutate_document(document[at], source), *document[at + 1 :]]
    if source.random() < 0.05:
        for _ in range(source.choice((10, 300, 600, 900))):
            document = [document]
        return document
    return source.choice(ODD)


def _change(data: bytearray, source: Random, tokens: tuple[bytes, ...], others: tuple[bytes, ...]) -> None:
    kind = source.randrange(12)
    at = source.randrange(len(data) + 1)
    if source.random() < 0.3:
        at = min(at, source.randrange(256))  # headers are where files begin
    span = min(len(data) - at, 1 + int(source.paretovariate(0.7)))
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << source.randrange(8)
    elif kind == 1 and data:
        data[at % len(data)] = source.randrange(256)
    elif kind in (2, 3):
        _put_number(data, at, source)
    elif kind in (4, 5) and tokens:
        token = source.choice(tokens)
        found = data.find(token, at)
        if found < 0:
            found = data.find(token)
        if found >= 0:
            _put_number(data, found + source.choice((-4, -8, len(token), len(token) + 4, len(token) + 8)), source)
        else:
            data[at:at] = token
    elif kind == 6:
        del data[at : at + span]
    elif kind == 7:
        data[at:at] = data[at : at + span] * source.choice((1, 1, 2, 40))
    elif kind == 8 and source.random() < 0.5:
        del data[at:]
    elif kind == 9 and others:
        other = source.choice(others)
        begin = source.randrange(len(other) + 1)
        data[at : at + span] = other[begin : begin + span + source.randrange(64)]
    elif kind == 10:
        data[at:at] = source.randbytes(min(span, 64))
    elif kind == 11:
        to = source.randrange(len(data) + 1)
        data[to : to + span] = data[at : at + span]


def _put_number(data: bytearray, at: int, source: Random) -> None:
    width = source.choice(WIDTHS)
    at = max(0, at)
    orders: tuple[Literal["little"], Literal["big"]] = ("little", "big")
    order = source.choice(orders)
    if source.random() < 0.3:
        number = int.from_bytes(data[at : at + width], order) + source.randrange(-16, 17)
    else:
        number = source.choice(INTERESTING)
    data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)
