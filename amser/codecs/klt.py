"""`klt`: a fixed Karhunen-Loève basis across bands, cosines along time, and a range coder; a tenth of `svd-f16`.

The device sends no basis: 80 × 80 numbers, learnt from other speakers, stand ready at both ends, and so do the
frequencies of the symbols (`amser.codecs.klt_tables`). The basis is that of a log-Mel weighted by how much Whisper's
words depend on each part of it, so that one step for all coefficients spends bits where they matter (docs/decisions).

Payload: uint8 version of the basis, its highest bit set for a stream; uint8 step index; uint8 level of the loudest cell
(for a stream, what the device expects); then the range coder's bytes.
A stream has for each block of 8 frames a length (LEB128) and that many bytes. Nothing depends on an earlier block, so
that each can be read when it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import constriction
import numpy as np
from numpy.typing import NDArray

from amser.codecs.base import (
    LARGEST_VALUE,
    CodecError,
    Float32,
    MalformedPayload,
    NotFinite,
    Setting,
    require_finite,
)
from amser.codecs.klt_tables import BANDS, BASIS_VERSION, BLOCKS, Plan, level_index, level_of, plan, step_of, tables
from amser.features import DYNAMIC_RANGE, LOG_SCALE, clamp_to_floor

PROFILES: Final = MappingProxyType({"low": 30, "standard": 23, "robust": 16})  # step index; docs/wire.md has the rates
DEFAULT_PROFILE: Final = "standard"  # words as good as uncompressed
USUAL_LEVEL: Final = 1.2  # the loudest cell of LibriSpeech's utterances, in the middle
MOST_FRAMES: Final = 3000  # Whisper's context of 30 s
COARSEST: Final = 56  # step index: 12.8
WHOLE, STREAMED = BLOCKS
MOST_BLOCKS: Final = MOST_FRAMES // STREAMED  # of a stream
STREAM: Final = 0x80  # of the first byte
HEADER: Final = 3  # bytes
WORD: Final = np.dtype(">u4")  # what the range coder writes at a time
FLOOR_BELOW: Final = DYNAMIC_RANGE / LOG_SCALE
LARGEST_LENGTH: Final = 4096  # bytes of a streamed block
LENGTH_BYTES: Final = 2  # at most, LEB128
LARGEST_SYMBOL: Final = 2**16 - 2  # what 16 digits hold; cells within ±16 come to 36,815 of the finest steps at most
Uniform = constriction.stream.model.Uniform
LENGTHS: Final = Uniform(16)


@dataclass(frozen=True, slots=True)
class Klt:
    """Coefficients of a fixed basis, as few bits as their probabilities allow."""

    name: str = "klt"
    number: int = 5
    takes: frozenset[str] = frozenset({"step"})

    def read_setting(self, text: str) -> Setting:
        return Setting(step=step_index(text))

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:  # noqa: ARG002 - the Protocol's signature
        return True

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:
        """A whole utterance: blocks of 320 ms under one range coder."""
        bands, frames = log_mel.shape
        if bands != BANDS:
            raise CodecError(f"klt was given {bands} bands", f"the {BANDS} of the profile whisper80")
        if frames > MOST_FRAMES:
            raise CodecError(f"klt was given {frames} frames", f"{MOST_FRAMES} at most")
        index = step_index(DEFAULT_PROFILE if setting.step is None else setting.step)
        level = level_index(float(log_mel.max()))
        coefficients = _analyse(log_mel - np.float32(level_of(level)), WHOLE)
        return bytes((BASIS_VERSION, index, level)) + _write(coefficients, plan(WHOLE, index), step_of(index))

    def rank(self, payload: bytes) -> int | None:  # noqa: ARG002 - the Protocol's signature
        return None

    def step(self, payload: bytes) -> int:
        """The step index in the payload's header. Raises MalformedPayload."""
        check_header(payload)
        return payload[1]

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:  # noqa: ARG002
        check_header(payload)
        if bands != BANDS or frames > MOST_FRAMES:
            limit = f"{BANDS} bands and {MOST_FRAMES} frames at most"
            raise MalformedPayload(f"klt of {bands} bands and {frames} frames", limit)

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:  # noqa: ARG002 - checked
        """Of a whole utterance or of a stream."""
        if not payload[0] & STREAM:
            coefficients = _read(payload[HEADER:], WHOLE, -(-frames // WHOLE), payload[1])
            return clamp_to_floor(_synthesise(coefficients, frames, payload[2]))
        blocks = _streamed(payload)
        expected = -(-frames // STREAMED)
        if len(blocks) != expected:
            raise MalformedPayload(f"the stream has {len(blocks)} blocks", f"{expected} for {frames} frames")
        coefficients = np.concatenate([_read(block, STREAMED, 1, payload[1]) for block in blocks], axis=1)
        return clamp_to_floor(_synthesise(coefficients, frames, payload[2]))


def step_index(step: int | str) -> int:
    """The index of a step that is given as a profile's name or as an index. Raises CodecError."""
    if isinstance(step, str) and step in PROFILES:
        return PROFILES[step]
    try:
        index = int(step)
    except ValueError:
        index = -1
    if not 0 <= index <= COARSEST:
        raise CodecError(f"klt has no step {step!r}", f"{', '.join(PROFILES)}, or an index from 0 to {COARSEST}")
    return index


def check_header(payload: bytes) -> None:
    """Refuses what another version wrote. Raises MalformedPayload."""
    if len(payload) < HEADER:
        raise MalformedPayload(f"the payload has {len(payload)} bytes", f"{HEADER} or more")
    if payload[0] & ~STREAM != BASIS_VERSION:
        raise MalformedPayload(f"the payload has basis version {payload[0] & ~STREAM}", str(BASIS_VERSION))
    if payload[1] > COARSEST:
        raise MalformedPayload(f"the payload has step index {payload[1]}", f"0 to {COARSEST}")


class StreamEncoder:
    """Frames in, blocks of bytes out, while the person still speaks. Used by one thread at a time.

    Args:
        step: a name in `PROFILES` or an index from 0 to `COARSEST`.
        level: of the loudest cell that is to come, from earlier speech of this device. Any will do; a near one saves
            some bits.

    Raises:
        CodecError: there is no such step.
        NotFinite: the level is NaN or infinite.
    """

    def __init__(self, step: int | str = DEFAULT_PROFILE, level: float = USUAL_LEVEL) -> None:
        if not np.isfinite(level):
            raise NotFinite(f"the level is {level}", "a finite one")
        self._step_index = step_index(step)
        self._level = level_index(level)
        self._begun = False
        self._held = np.zeros((BANDS, 0), np.float32)
        self._loudest = -np.inf

    def push(self, frames: Float32) -> bytes:
        """The blocks that these frames (80, n) complete, each with its length in front; often none.

        The payload's header comes before the first one. Frames that are refused leave the encoder as it was.

        Raises:
            CodecError, NotFinite: another shape, or a value beyond ±`LARGEST_VALUE`.
        """
        if frames.ndim != 2 or len(frames) != BANDS:
            raise CodecError(f"klt was given frames of shape {frames.shape}", f"({BANDS}, n)")
        if frames.size:
            require_finite(frames)
        self._held = np.concatenate((self._held, frames), axis=1)
        count = self._held.shape[1] // STREAMED
        ready, self._held = np.split(self._held, [count * STREAMED], axis=1)
        return b"".join(self._block(ready[:, at : at + STREAMED]) for at in range(0, ready.shape[1], STREAMED))

    def finish(self) -> bytes:
        """The last block, if frames are left; the encoder is then as new."""
        last = self._block(self._held) if self._held.shape[1] else b""
        self._held, self._loudest, self._begun = self._held[:, :0], -np.inf, False
        return last

    def _block(self, frames: Float32) -> bytes:
        # What is under the floor of the frames so far will be under that of the whole: bits for it would be wasted.
        self._loudest = max(self._loudest, float(frames.max()))
        raised = np.maximum(frames, np.float32(self._loudest - FLOOR_BELOW))
        header, index = b"", self._step_index
        if not self._begun:
            self._begun = True
            header = bytes((BASIS_VERSION | STREAM, index, self._level))
        coefficients = _analyse(raised - np.float32(level_of(self._level)), STREAMED)
        body = _write(coefficients, plan(STREAMED, index), step_of(index))
        return header + _leb128(len(body)) + body


class StreamDecoder:
    """Blocks of bytes in, frames out, before the end arrives. Used by one thread at a time."""

    def __init__(self) -> None:
        self._header = b""
        self.held = b""  # of a block that is not complete
        self._read: list[Float32] = []
        self._blocks = 0
        self._refused: MalformedPayload | None = None

    def push(self, received: bytes) -> Float32:
        """(80, 8 n): the frames of the blocks that are complete; not clamped, and the last block may be padded.

        Frames of blocks before a malformed one are returned; the next push, of no bytes too, then raises what is wrong
        with it, and so does every later one.

        Raises:
            MalformedPayload: another version, no stream, more than `MOST_FRAMES`, a block longer than any can be, or
                one that no encoder wrote.
        """
        if self._refused is not None:
            raise self._refused
        self.held += received
        if not self._header:
            if len(self.held) < HEADER:
                return np.zeros((BANDS, 0), np.float32)
            check_header(self.held)
            if not self.held[0] & STREAM:
                raise MalformedPayload("the payload is a whole utterance", "a stream")
            self._header, self.held = self.held[:HEADER], self.held[HEADER:]
        parts: list[Float32] = []
        at = 0
        try:
            while (found := _block_at(self.held, at)) is not None:
                if self._blocks == MOST_BLOCKS:
                    raise _too_many_blocks()
                block, at = found
                parts.append(_read(block, STREAMED, 1, self._header[1]))
                self._blocks += 1
        except MalformedPayload as error:
            self._refused = error
            if not parts:
                raise
        self.held = self.held[at:]
        self._read += parts
        if not parts:
            return np.zeros((BANDS, 0), np.float32)
        return _synthesise(np.concatenate(parts, axis=1), len(parts) * STREAMED, self._header[2])

    def whole(self, frames: int) -> Float32:
        """(80, frames): what `Klt.decode` makes of the first blocks, bit for bit. `push` has returned these frames."""
        coefficients = np.concatenate(self._read[: -(-frames // STREAMED)], axis=1)
        return clamp_to_floor(_synthesise(coefficients, frames, self._header[2]))


def _analyse(log_mel: Float32, block: int) -> NDArray[np.float64]:
    """(80, T) → (80, blocks, block): weighted coefficients; the last frame fills the last block.

    In float64: what another order of the same sums gives differs by 1e-15, and practically never rounds to another
    symbol. So every processor writes the same bytes, and so does a browser (docs/browser.md).
    """
    known = tables()
    count = -(-log_mel.shape[1] // block)
    rows = np.empty((BANDS, count * block), np.float64)
    np.matmul(known.analysis.astype(np.float64), log_mel - known.mean, out=rows[:, : log_mel.shape[1]])
    rows[:, log_mel.shape[1] :] = rows[:, log_mel.shape[1] - 1, None]
    coefficients: NDArray[np.float64] = rows.reshape(BANDS, count, block) @ known.forward(block).T.astype(np.float64)
    return coefficients


def _synthesise(coefficients: Float32, frames: int, level: int) -> Float32:
    """(80, blocks, block) → (80, frames)."""
    known = tables()
    rows = (coefficients @ known.inverse(coefficients.shape[2])).reshape(BANDS, -1)[:, :frames]
    log_mel: Float32 = known.synthesis @ rows + (known.mean + np.float32(level_of(level)))
    return np.clip(log_mel, -LARGEST_VALUE, LARGEST_VALUE, out=log_mel)


def _write(coefficients: NDArray[np.float64], order: Plan, step: float) -> bytes:
    """The range coder's bytes: loudest class first, all its coefficients in all blocks; then what passed the tables."""
    bands, count, block = coefficients.shape
    steps = coefficients.transpose(0, 2, 1).reshape(bands * block, count)[order.order] / np.float32(step)
    rounded = np.clip(np.floor(np.abs(steps) + order.rounding), 1, LARGEST_SYMBOL)
    symbols = np.where(np.abs(steps) < order.threshold, 0, np.copysign(rounded, steps)).astype(np.int32)
    largest = order.largest
    shifted = np.clip(symbols, -largest, largest) + largest
    encoder = constriction.stream.queue.RangeEncoder()
    for each, begin, end in order.runs:
        encoder.encode(shifted[begin:end].ravel(), each.model)
    for excess in (np.abs(symbols) - largest)[np.abs(symbols) >= largest].tolist():
        _write_excess(encoder, excess)
    return _shortest(encoder.get_compressed().astype(WORD).tobytes(), symbols, order)


def _shortest(written: bytes, symbols: NDArray[np.int32], order: Plan) -> bytes:
    """The fewest bytes that still mean these symbols: the coder ends with a whole word, of which a part is chance."""
    for spared in range(WORD.itemsize - 1, 0, -1):
        prefix = written[:-spared]
        # Zeros take the place of what was cut off, so the number before them has to be rounded up to stay in range.
        above = (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix) + 1, "big")
        if not above[0] and _means(above[1:], symbols, order):
            return above[1:]
    return written


def _means(body: bytes, symbols: NDArray[np.int32], order: Plan) -> bool:
    try:
        return np.array_equal(_symbols(body, order, symbols.shape[1]), symbols)
    except AssertionError:  # constriction's: bytes that no symbols lead to
        return False


def _symbols(body: bytes, order: Plan, count: int) -> NDArray[np.int32]:
    """(n, count) in the order of writing. Zeros follow the last byte."""
    words = np.frombuffer(body + bytes(-len(body) % WORD.itemsize), WORD).astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    symbols = np.empty((len(order.order), count), np.int32)
    for each, begin, end in order.runs:
        symbols[begin:end] = decoder.decode(each.model, (end - begin) * count).reshape(end - begin, count)
        symbols[begin:end] -= each.largest
    for each, begin, end in order.runs:  # one class at a time: bytes of any kind ask for little memory
        those = symbols[begin:end].reshape(-1)
        at = np.flatnonzero(np.abs(those) >= each.largest)
        excesses = np.fromiter((_read_excess(decoder) for _ in at), np.int32, at.size)
        those[at] += np.where(those[at] > 0, excesses, -excesses)
    return symbols


def _write_excess(encoder: Any, excess: int) -> None:
    """How far a magnitude passes the largest of its class (Elias gamma), for sounds that no table has learnt."""
    digits = (excess + 1).bit_length()
    encoder.encode(digits - 1, LENGTHS)
    if digits > 1:
        encoder.encode(excess + 1 - (1 << digits - 1), Uniform(1 << digits - 1))


def _read_excess(decoder: Any) -> int:
    digits = int(decoder.decode(LENGTHS)) + 1
    return (1 << digits - 1) + (int(decoder.decode(Uniform(1 << digits - 1))) if digits > 1 else 0) - 1


def _read(body: bytes, block: int, count: int, step_index: int) -> Float32:
    """(80, count, block): what the symbols stand for.

    Zeros take the place of bytes that are missing, and mean something: so bytes are counted. A coder writes whole words
    and leaves out three bytes at most of the last one.
    """
    order = plan(block, step_index)
    flat = np.zeros((BANDS * block, count), np.float32)
    try:
        symbols = _symbols(body, order, count)
    except AssertionError as error:
        raise MalformedPayload(f"the range coder's bytes mean nothing ({error})", "what an encoder wrote") from None
    bits = 0.0
    for each, begin, end in order.runs:
        known = np.clip(symbols[begin:end], -each.largest, each.largest)
        flat[order.order[begin:end]] = each.values[known + each.largest] + (symbols[begin:end] - known)
        passed = np.abs(symbols[begin:end])
        passed = passed[passed >= each.largest] - each.largest
        # Elias gamma: four bits for the number of digits, and the digits after the first
        bits += float(each.bits[known + each.largest].sum(dtype=np.float64)) + float(
            (3 + np.frexp(passed + 1)[1]).sum()
        )
    least = WORD.itemsize * int(bits // (8 * WORD.itemsize)) + 1
    if len(body) < least:
        cause = f"the range coder has {len(body)} bytes for {count * block} frames of step {step_index}"
        raise MalformedPayload(cause, f"{least} or more, as what they hold takes")
    flat *= np.float32(step_of(step_index))
    return flat.reshape(BANDS, block, count).transpose(0, 2, 1)


def _leb128(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _block_at(stream: bytes, at: int) -> tuple[bytes, int] | None:
    """The block whose length is at this place, and where the next one begins; None while some of it is to come."""
    length = 0
    for place in range(LENGTH_BYTES):
        if at == len(stream):
            return None
        byte = stream[at]
        at += 1
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    else:
        limit = f"{LENGTH_BYTES} bytes, which hold {LARGEST_LENGTH} at most"
        raise MalformedPayload(f"the length of a block takes more than {LENGTH_BYTES} bytes", limit)
    if length > LARGEST_LENGTH:
        raise MalformedPayload(f"a block of {length} bytes", f"{LARGEST_LENGTH} at most")
    end = at + length
    return (stream[at:end], end) if end <= len(stream) else None


def _streamed(payload: bytes) -> list[bytes]:
    blocks: list[bytes] = []
    at = HEADER
    while (found := _block_at(payload, at)) is not None:
        if len(blocks) == MOST_BLOCKS:
            raise _too_many_blocks()
        block, at = found
        blocks.append(block)
    if at != len(payload):
        raise MalformedPayload("the stream ends within a block", "whole blocks")
    return blocks


def _too_many_blocks() -> MalformedPayload:
    return MalformedPayload(f"the stream has more than {MOST_BLOCKS} blocks", f"{MOST_FRAMES} frames at most")
