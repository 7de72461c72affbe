// The tables of klt and of the log-Mel as typed arrays, and what follows from them (amser/codecs/klt_tables.py).

import { BASIS_VERSION, BYTES, PLACES } from "./tables.js";

export { BASIS_VERSION };
export const BANDS = 80;
export const WHOLE = 32; // frames that are transformed together: of a whole utterance
export const STREAMED = 8; // of a stream
export const COARSEST = 56; // step index
export const PROFILES = Object.freeze({ low: 30, standard: 23, robust: 16 }); // step index
export const PROBABILITY_BITS = 24; // of the range coder

const FREQUENCIES = 2 ** 16; // what those of a class add up to
const SCALES_PER_CLASS = 2;
const LOWEST_LEVEL = -2;
const LEVELS_PER_UNIT = 32;
const TYPES = { Float32Array, Int32Array, Int16Array, Uint16Array };

const bytes = Uint8Array.from(atob(BYTES), (character) => character.charCodeAt(0));
if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) throw new Error("the tables of klt need a little-endian processor");

/** One of the tables by its name. */
export function table(name) {
  const [type, start, items] = PLACES[name];
  return new TYPES[type](bytes.buffer, start, items);
}

/** How coefficients of about one scale are rounded, written and read. `cumulatives` are those of the range coder. */
const CLASSES = readClasses();
const FIRST_SCALE = table("classes")[0];

function readClasses() {
  const rows = table("classes");
  const frequencies = table("frequencies");
  const values = table("values");
  const classes = [];
  let start = 0;
  for (let row = 0; row < rows.length / 2; row++) {
    const largest = rows[2 * row + 1];
    const symbols = 2 * largest + 1;
    const half = frequencies.subarray(start, start + largest + 1);
    const upper = values.subarray(start, start + largest + 1);
    classes.push({
      largest,
      cumulatives: cumulativesOf(half, largest, symbols),
      values: Float32Array.from({ length: symbols }, (_, symbol) =>
        symbol < largest ? -upper[largest - symbol] : upper[symbol - largest],
      ),
      threshold: table("thresholds")[row],
      rounding: table("roundings")[row],
    });
    start += largest + 1;
  }
  return classes;
}

/**
 * Of constriction's `Categorical(…, perfect=False)`: every symbol has one unit of 2^-24, and the rest goes by frequency,
 * multiplied in float32.
 */
function cumulativesOf(half, largest, symbols) {
  const cumulatives = new Uint32Array(symbols + 1);
  const free = 2 ** PROBABILITY_BITS - symbols;
  let sum = 0;
  for (let symbol = 0; symbol < symbols; symbol++) {
    cumulatives[symbol] = Math.trunc(Math.fround((sum / FREQUENCIES) * free)) + symbol;
    sum += half[Math.abs(symbol - largest)];
  }
  cumulatives[symbols] = 2 ** PROBABILITY_BITS;
  return cumulatives;
}

const plans = new Map();

/**
 * In which order the coefficients of a block are written at a step: positions in the flat (bands, block) matrix, and runs
 * of one class each, the loudest first.
 */
export function planOf(block, stepIndex) {
  const key = `${block} ${stepIndex}`;
  if (!plans.has(key)) plans.set(key, makePlan(block, stepIndex));
  return plans.get(key);
}

function makePlan(block, stepIndex) {
  const byClass = CLASSES.map(() => []);
  table(`scales_${block}`).forEach((scale, position) => {
    const relative = Math.floor((scale - stepIndex - FIRST_SCALE) / SCALES_PER_CLASS);
    if (relative >= 0) byClass[Math.min(relative, CLASSES.length - 1)].push(position);
  });
  const order = [];
  const runs = [];
  for (let index = CLASSES.length - 1; index >= 0; index--) {
    if (!byClass[index].length) continue;
    runs.push({ ...CLASSES[index], begin: order.length, end: order.length + byClass[index].length });
    order.push(...byClass[index]);
  }
  return { order: Int32Array.from(order), runs };
}

/** The quantiser's step, float32. */
export const stepOf = (index) => table("steps")[index];

/** The index of a step that is given as a profile's name or as an index. Throws RangeError. */
export function stepIndex(step) {
  const index = Object.hasOwn(PROFILES, step) ? PROFILES[step] : Number(step);
  if (!Number.isInteger(index) || index < 0 || index > COARSEST) {
    throw new RangeError(`klt has no step ${step}: ${Object.keys(PROFILES).join(", ")}, or an index from 0 to ${COARSEST}`);
  }
  return index;
}

/** The level of the loudest cell as a byte; halves go to the even number, as Python rounds. */
export function levelIndex(loudest) {
  const exact = (loudest - LOWEST_LEVEL) * LEVELS_PER_UNIT;
  const floor = Math.floor(exact);
  const rounded = exact - floor === 0.5 ? floor + (floor % 2 === 0 ? 0 : 1) : Math.round(exact);
  return Math.min(255, Math.max(0, rounded));
}

/** The level that a byte means, in Whisper's scale. */
export const levelOf = (index) => index / LEVELS_PER_UNIT + LOWEST_LEVEL;
