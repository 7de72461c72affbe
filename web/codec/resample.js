// Any sample rate → 16 kHz, through the filter of amser/features.py (scipy.signal.resample_poly), also piece by piece.

import { SAMPLE_RATE, wholeOf } from "./log-mel.js";

export const RESAMPLED_FROM = Object.freeze([4000, 192000]); // Hz
const HALF_LENGTH = 10; // of the filter, in samples of the slower rate
const KAISER_BETA = 5;

/** A whole waveform at 16 kHz: Float32Array of ceil(samples · 16000 / rate). Throws RangeError for other rates. */
export function resample(waveform, rate) {
  return wholeOf(new Resampler(rate), waveform);
}

/** Samples of one rate in, samples at 16 kHz out; the same ones, however the waveform is cut. */
export class Resampler {
  #up;
  #down;
  #half;
  #filter;
  #held = new Float32Array(0); // input from sample `#start` on
  #start = 0;
  #made = 0; // output

  constructor(rate) {
    const [lowest, highest] = RESAMPLED_FROM;
    if (!Number.isInteger(rate) || rate < lowest || rate > highest) {
      throw new RangeError(`the sample rate is ${rate} Hz: ${lowest} to ${highest} Hz`);
    }
    const divisor = greatestCommonDivisor(rate, SAMPLE_RATE);
    this.#up = SAMPLE_RATE / divisor;
    this.#down = rate / divisor;
    this.#half = HALF_LENGTH * Math.max(this.#up, this.#down);
    this.#filter = lowPass(this.#half, Math.max(this.#up, this.#down), this.#up);
  }

  /** The samples at 16 kHz that these complete. */
  push(samples) {
    if (this.#up === this.#down) return samples;
    const held = new Float32Array(this.#held.length + samples.length);
    held.set(this.#held);
    held.set(samples, this.#held.length);
    this.#held = held;
    const received = this.#start + held.length;
    // Output m reaches up to input (m · down + half) / up
    const reach = Math.ceil(((received - 1) * this.#up - this.#half + 1) / this.#down);
    return this.#compute(Math.max(this.#made, reach));
  }

  /** The rest; zeros follow the end. The next `push` begins another recording. */
  finish() {
    if (this.#up === this.#down) return new Float32Array(0);
    const received = this.#start + this.#held.length;
    const last = this.#compute(Math.ceil((received * this.#up) / this.#down));
    this.#held = new Float32Array(0);
    this.#start = 0;
    this.#made = 0;
    return last;
  }

  #compute(end) {
    const made = new Float32Array(end - this.#made);
    const received = this.#start + this.#held.length;
    for (let at = 0; at < made.length; at++) {
      const centre = (this.#made + at) * this.#down;
      const first = Math.max(0, Math.ceil((centre - this.#half) / this.#up));
      const last = Math.min(received - 1, Math.floor((centre + this.#half) / this.#up));
      let sum = 0;
      for (let input = first; input <= last; input++) {
        sum += this.#held[input - this.#start] * this.#filter[centre - input * this.#up + this.#half];
      }
      made[at] = sum;
    }
    this.#made = end;
    const needed = Math.max(this.#start, Math.min(received, Math.ceil((end * this.#down - this.#half) / this.#up)));
    this.#held = this.#held.slice(needed - this.#start);
    this.#start = needed;
    return made;
  }
}

/** A windowed sinc with a gain of `up` for constant signals, float32. */
function lowPass(half, slower, up) {
  const filter = Float64Array.from({ length: 2 * half + 1 }, (_, at) => {
    const x = (at - half) / slower;
    const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    const r = (at - half) / half;
    return (sinc / slower) * (bessel(KAISER_BETA * Math.sqrt(Math.max(0, 1 - r * r))) / bessel(KAISER_BETA));
  });
  const sum = filter.reduce((total, tap) => total + tap, 0);
  return Float32Array.from(filter, (tap) => Math.fround(tap / sum) * up);
}

/** The modified Bessel function of the first kind and order 0, by its series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(one, other) {
  return other ? greatestCommonDivisor(other, one % other) : one;
}
