// The codec `klt` (amser/codecs/klt.py, docs/wire.md): the same bytes as Python from the same log-Mel.
//
// A log-Mel is a Float32Array, one frame of 80 bands after another.

import {
  BANDS, BASIS_VERSION, COARSEST, STREAMED, WHOLE, levelIndex, levelOf, planOf, stepIndex, stepOf, table,
} from "./arrays.js";
import { InvalidBytes, RangeDecoder, RangeEncoder } from "./range-coder.js";

export const MOST_FRAMES = 3000;
export const USUAL_LEVEL = 1.2; // of a stream's loudest cell
const STREAM = 0x80; // of the first byte
const HEADER = 3; // bytes
const LARGEST_VALUE = 16; // of a log-Mel cell
const LARGEST_SYMBOL = 2 ** 16 - 2;
const FLOOR_BELOW = 2; // eight decades, in Whisper's scale
const LENGTH_DIGITS = 4; // binary, of the number of digits of an excess
const UNIFORM_UNITS = 2 ** 24;

/** A payload that no encoder wrote. */
export class MalformedPayload extends Error {}

const mean = table("mean");
const analysis = table("analysis");
const synthesis = table("synthesis");

/** The payload of a whole utterance. Throws RangeError for a log-Mel or a step that klt does not know. */
export function encode(logMel, step = "standard") {
  const frames = framesOf(logMel);
  if (frames < 1 || frames > MOST_FRAMES) throw new RangeError(`klt was given ${frames} frames: 1 to ${MOST_FRAMES}`);
  const index = stepIndex(step);
  const level = levelIndex(loudestOf(logMel));
  const symbols = quantise(analyse(logMel, frames, levelOf(level), WHOLE), WHOLE, index);
  return joined(Uint8Array.of(BASIS_VERSION, index, level), write(symbols, planOf(WHOLE, index)));
}

/** The log-Mel of a payload, of a whole utterance or of a stream. Throws MalformedPayload. */
export function decode(payload, frames) {
  if (payload.length < HEADER || (payload[0] & ~STREAM) !== BASIS_VERSION || payload[1] > COARSEST) {
    throw new MalformedPayload("the payload has another version or step, or is cut off");
  }
  if (!(payload[0] & STREAM)) {
    const count = Math.ceil(frames / WHOLE);
    const coefficients = read(payload.subarray(HEADER), WHOLE, count, payload[1]);
    return clampToFloor(synthesise(coefficients, WHOLE, count, frames, payload[2]));
  }
  const decoder = new StreamDecoder();
  const logMel = decoder.push(payload);
  if (logMel.length !== Math.ceil(frames / STREAMED) * STREAMED * BANDS) {
    throw new MalformedPayload(`the stream has another number of blocks than ${frames} frames`);
  }
  return clampToFloor(logMel.slice(0, frames * BANDS));
}

/** Raises a log-Mel to its floor, eight decades below its loudest cell; a new array. */
export function clampToFloor(logMel) {
  const floor = Math.fround(loudestOf(logMel) - FLOOR_BELOW);
  return logMel.map((cell) => (cell > floor ? cell : floor));
}

/** Frames in, blocks of bytes out, while the person still speaks. Throws RangeError, see `encode`. */
export class StreamEncoder {
  #index;
  #level;
  #begun = false;
  #held = new Float32Array(0);
  #loudest = -Infinity;

  constructor(step = "standard", level = USUAL_LEVEL) {
    if (!Number.isFinite(level)) throw new RangeError(`the level is ${level}`);
    this.#index = stepIndex(step);
    this.#level = levelIndex(level);
  }

  /** The blocks that these frames complete, each with its length in front; often none. The header comes first. */
  push(logMel) {
    if (logMel.length) checked(logMel);
    this.#held = joined(this.#held, logMel);
    const ready = Math.floor(framesOf(this.#held) / STREAMED);
    let written = new Uint8Array(0);
    for (let block = 0; block < ready; block++) {
      const start = block * STREAMED * BANDS;
      written = joined(written, this.#block(this.#held.subarray(start, start + STREAMED * BANDS)));
    }
    this.#held = this.#held.slice(ready * STREAMED * BANDS);
    return written;
  }

  /** The last block, if frames are left; the encoder is then as new. */
  finish() {
    const last = this.#held.length ? this.#block(this.#held) : new Uint8Array(0);
    this.#held = new Float32Array(0);
    this.#loudest = -Infinity;
    this.#begun = false;
    return last;
  }

  #block(frames) {
    // What is under the floor of the frames so far will be under that of the whole: bits for it would be wasted.
    this.#loudest = Math.max(this.#loudest, loudestOf(frames));
    const floor = Math.fround(this.#loudest - FLOOR_BELOW);
    const raised = frames.map((cell) => (cell > floor ? cell : floor));
    const header = this.#begun ? [] : [BASIS_VERSION | STREAM, this.#index, this.#level];
    this.#begun = true;
    const coefficients = analyse(raised, framesOf(raised), levelOf(this.#level), STREAMED);
    const body = write(quantise(coefficients, STREAMED, this.#index), planOf(STREAMED, this.#index));
    return joined(Uint8Array.from([...header, ...leb128(body.length)]), body);
  }
}

/** Blocks of bytes in, frames out, before the end arrives; not clamped. Throws MalformedPayload. */
export class StreamDecoder {
  #header = null;
  #held = new Uint8Array(0);

  push(received) {
    this.#held = joined(this.#held, received);
    if (!this.#header) {
      if (this.#held.length < HEADER) return new Float32Array(0);
      const [version, step] = this.#held;
      if (version !== (BASIS_VERSION | STREAM) || step > COARSEST) throw new MalformedPayload("no stream of this version");
      this.#header = this.#held.slice(0, HEADER);
      this.#held = this.#held.slice(HEADER);
    }
    const parts = [];
    for (let found = blockAt(this.#held); found; found = blockAt(this.#held)) {
      const coefficients = read(found.block, STREAMED, 1, this.#header[1]);
      parts.push(synthesise(coefficients, STREAMED, 1, STREAMED, this.#header[2]));
      this.#held = this.#held.slice(found.end);
    }
    return parts.reduce(joined, new Float32Array(0));
  }
}

/** The block at the front, and where it ends; null while some of it is to come. */
function blockAt(bytes) {
  if (!bytes.length || (bytes[0] >= 0x80 && bytes.length < 2)) return null;
  if (bytes[0] >= 0x80 && bytes[1] >= 0x80) throw new MalformedPayload("the length of a block takes more than 2 bytes");
  const start = bytes[0] >= 0x80 ? 2 : 1;
  const end = start + (bytes[0] & 0x7f) + (start === 2 ? bytes[1] << 7 : 0);
  return end <= bytes.length ? { block: bytes.subarray(start, end), end } : null;
}

const leb128 = (number) => (number < 0x80 ? [number] : [(number & 0x7f) | 0x80, number >> 7]);

/** (frames, bands) → float64 (bands, blocks, block); the last frame fills the last block. */
function analyse(logMel, frames, level, block) {
  const count = Math.ceil(frames / block);
  const width = count * block;
  const rows = new Float64Array(BANDS * width);
  const shifted = new Float32Array(BANDS);
  for (let frame = 0; frame < frames; frame++) {
    // Both differences are rounded to float32, as NumPy rounds them
    for (let band = 0; band < BANDS; band++) {
      shifted[band] = Math.fround(logMel[frame * BANDS + band] - level) - mean[band];
    }
    for (let row = 0; row < BANDS; row++) {
      let sum = 0;
      for (let band = 0; band < BANDS; band++) sum += analysis[row * BANDS + band] * shifted[band];
      rows[row * width + frame] = sum;
    }
  }
  for (let row = 0; row < BANDS; row++) rows.fill(rows[row * width + frames - 1], row * width + frames, (row + 1) * width);
  const forward = table(`forward_${block}`);
  const coefficients = new Float64Array(BANDS * width);
  for (let start = 0; start < coefficients.length; start += block) {
    for (let cosine = 0; cosine < block; cosine++) {
      let sum = 0;
      for (let frame = 0; frame < block; frame++) sum += rows[start + frame] * forward[cosine * block + frame];
      coefficients[start + cosine] = sum;
    }
  }
  return coefficients;
}

/** float32 (bands, blocks, block) → (frames, bands). */
function synthesise(coefficients, block, count, frames, level) {
  const inverse = table(`inverse_${block}`);
  const width = count * block;
  const logMel = new Float32Array(frames * BANDS);
  const offset = mean.map((cell) => cell + levelOf(level));
  const column = new Float64Array(BANDS);
  for (let frame = 0; frame < frames; frame++) {
    const within = frame % block;
    for (let row = 0; row < BANDS; row++) {
      const start = row * width + frame - within;
      let sum = 0;
      for (let cosine = 0; cosine < block; cosine++) sum += coefficients[start + cosine] * inverse[cosine * block + within];
      column[row] = sum;
    }
    for (let band = 0; band < BANDS; band++) {
      let sum = offset[band];
      for (let row = 0; row < BANDS; row++) sum += synthesis[band * BANDS + row] * column[row];
      logMel[frame * BANDS + band] = Math.min(LARGEST_VALUE, Math.max(-LARGEST_VALUE, sum));
    }
  }
  return logMel;
}

/** The symbols in the order of writing: for each coefficient, that of every block. */
function quantise(coefficients, block, index) {
  const { order, runs } = planOf(block, index);
  const count = coefficients.length / (BANDS * block);
  const step = stepOf(index);
  const symbols = new Int32Array(order.length * count);
  for (const { begin, end, threshold, rounding } of runs) {
    for (let at = begin; at < end; at++) {
      const band = Math.floor(order[at] / block);
      const cosine = order[at] % block;
      for (let each = 0; each < count; each++) {
        const steps = coefficients[(band * count + each) * block + cosine] / step;
        const magnitude = Math.abs(steps);
        if (magnitude < threshold) continue;
        const rounded = Math.min(LARGEST_SYMBOL, Math.max(1, Math.floor(magnitude + rounding)));
        symbols[at * count + each] = steps < 0 ? -rounded : rounded;
      }
    }
  }
  return symbols;
}

function write(symbols, plan) {
  const encoder = new RangeEncoder();
  const excesses = [];
  const count = plan.order.length ? symbols.length / plan.order.length : 0;
  for (const { begin, end, largest, cumulatives } of plan.runs) {
    for (let at = begin * count; at < end * count; at++) {
      const magnitude = Math.abs(symbols[at]);
      if (magnitude >= largest) excesses.push(magnitude - largest + 1);
      const symbol = Math.min(largest, Math.max(-largest, symbols[at])) + largest;
      encoder.encode(cumulatives[symbol], cumulatives[symbol + 1] - cumulatives[symbol]);
    }
  }
  for (const number of excesses) {
    const further = 31 - Math.clz32(number); // digits after the first
    encodeUniform(encoder, further, LENGTH_DIGITS);
    if (further) encodeUniform(encoder, number - 2 ** further, further);
  }
  return shortest(encoder.finish(), symbols, plan, count);
}

function encodeUniform(encoder, symbol, digits) {
  const units = UNIFORM_UNITS / 2 ** digits;
  encoder.encode(symbol * units, units);
}

/** The fewest bytes that still mean these symbols: the coder ends with a whole word, of which a part is chance. */
function shortest(written, symbols, plan, count) {
  for (let spared = 3; spared > 0; spared--) {
    const above = oneMore(written.subarray(0, Math.max(0, written.length - spared)));
    if (above && means(above, symbols, plan, count)) return above;
  }
  return written;
}

/** The number that these bytes are, plus one; null where it takes another byte. */
function oneMore(bytes) {
  const above = bytes.slice();
  for (let at = above.length - 1; at >= 0; at--) {
    above[at] += 1; // modulo 256
    if (above[at]) return above;
  }
  return null;
}

function means(body, symbols, plan, count) {
  try {
    const read = symbolsOf(body, plan, count);
    return read.every((symbol, at) => symbol === symbols[at]);
  } catch (error) {
    if (error instanceof InvalidBytes) return false;
    throw error;
  }
}

function symbolsOf(body, plan, count) {
  const decoder = new RangeDecoder(body);
  const symbols = new Int32Array(plan.order.length * count);
  for (const { begin, end, largest, cumulatives } of plan.runs) {
    for (let at = begin * count; at < end * count; at++) symbols[at] = decoder.decode(cumulatives) - largest;
  }
  for (const { begin, end, largest } of plan.runs) {
    for (let at = begin * count; at < end * count; at++) {
      if (Math.abs(symbols[at]) < largest) continue;
      const further = decoder.decodeUniform(LENGTH_DIGITS);
      const excess = 2 ** further + (further ? decoder.decodeUniform(further) : 0) - 1;
      symbols[at] += symbols[at] > 0 ? excess : -excess;
    }
  }
  return symbols;
}

/** float32 (bands, count, block): what the symbols of a body stand for. */
function read(body, block, count, index) {
  const plan = planOf(block, index);
  let symbols;
  try {
    symbols = symbolsOf(body, plan, count);
  } catch (error) {
    throw error instanceof InvalidBytes ? new MalformedPayload(error.message) : error;
  }
  const coefficients = new Float32Array(BANDS * count * block);
  const step = stepOf(index);
  for (const { begin, end, largest, values } of plan.runs) {
    for (let at = begin; at < end; at++) {
      const band = Math.floor(plan.order[at] / block);
      const cosine = plan.order[at] % block;
      for (let each = 0; each < count; each++) {
        const symbol = symbols[at * count + each];
        const known = Math.min(largest, Math.max(-largest, symbol));
        const steps = Math.fround(values[known + largest] + (symbol - known));
        coefficients[(band * count + each) * block + cosine] = steps * step;
      }
    }
  }
  return coefficients;
}

function loudestOf(logMel) {
  let loudest = -Infinity;
  for (const cell of logMel) if (cell > loudest) loudest = cell;
  return loudest;
}

function framesOf(logMel) {
  if (logMel.length % BANDS) throw new RangeError(`klt was given ${logMel.length} cells: ${BANDS} a frame`);
  return checked(logMel).length / BANDS;
}

function checked(logMel) {
  for (const cell of logMel) {
    if (!(Math.abs(cell) <= LARGEST_VALUE)) throw new RangeError(`a cell is ${cell}: within ±${LARGEST_VALUE}`);
  }
  return logMel;
}

/** Two typed arrays of one type, one after the other. */
export function joined(first, second) {
  const both = new first.constructor(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
