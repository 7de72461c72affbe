// Waveform → log-Mel in Whisper's scale (amser/features.py, profile whisper80), while the person speaks or at once.
//
// Spectra are computed in float64 and rounded to float32 where Python has float32: cells differ from Python's by 1e-6.

import { BANDS, table } from "./arrays.js";

export const SAMPLE_RATE = 16000; // Hz
export const HOP_LENGTH = 160; // samples, 10 ms
const WINDOW_LENGTH = 400; // samples, 25 ms; also the length of the FFT
const HALF_WINDOW = WINDOW_LENGTH / 2;
const POWER_FLOOR = Math.fround(1e-10);
const BINS = HALF_WINDOW + 1;

const window = table("window");
const starts = table("mel_starts");
const ends = table("mel_ends");
const weights = table("mel_weights");

/** The log-Mel of a whole waveform (16 kHz, ±1), unclamped: Float32Array, one frame of 80 bands after another. */
export function logMel(waveform) {
  return wholeOf(new StreamingLogMel(), waveform);
}

/** The log-Mel of an utterance while it is spoken: each frame as soon as its window is complete. */
export class StreamingLogMel {
  #held = new Float32Array(0); // samples from `#start` on
  #start = 0;
  #frames = 0; // that came out

  /** The frames that these samples (16 kHz, ±1) complete, unclamped. */
  push(samples) {
    const held = new Float32Array(this.#held.length + samples.length);
    held.set(this.#held);
    held.set(samples, this.#held.length);
    this.#held = held;
    const received = this.#start + held.length;
    // The first frames see the mirrored beginning, which takes a sample more
    const complete = received <= HALF_WINDOW ? 0 : Math.floor((received - HALF_WINDOW) / HOP_LENGTH) + 1;
    return this.#compute(Math.max(0, complete - this.#frames));
  }

  /** The frames whose windows reach beyond the end, which is mirrored. The next `push` begins another utterance. */
  finish() {
    const received = this.#start + this.#held.length;
    const last = this.#compute(received <= HALF_WINDOW ? 0 : Math.floor(received / HOP_LENGTH) - this.#frames);
    this.#held = new Float32Array(0);
    this.#start = 0;
    this.#frames = 0;
    return last;
  }

  #compute(count) {
    const mel = new Float32Array(count * BANDS);
    const last = this.#start + this.#held.length - 1;
    for (let each = 0; each < count; each++, this.#frames++) {
      const begin = this.#frames * HOP_LENGTH - HALF_WINDOW;
      for (let at = 0; at < WINDOW_LENGTH; at++) {
        let sample = Math.abs(begin + at);
        if (sample > last) sample = 2 * last - sample;
        windowed[at] = Math.fround(this.#held[sample - this.#start] * window[at]);
      }
      melOf(mel.subarray(each * BANDS, (each + 1) * BANDS));
    }
    // What the next windows and a mirrored end can reach: a window before the next frame's centre and one hop more
    const kept = Math.max(this.#start, Math.min(this.#frames * HOP_LENGTH, last + 1) - WINDOW_LENGTH - HOP_LENGTH);
    this.#held = this.#held.slice(kept - this.#start);
    this.#start = kept;
    return mel;
  }
}

const windowed = new Float64Array(WINDOW_LENGTH);
const power = new Float64Array(BINS);

/** One frame of `windowed` into 80 cells. */
function melOf(cells) {
  powerSpectrum();
  let weight = 0;
  for (let band = 0; band < BANDS; band++) {
    let sum = 0;
    for (let bin = starts[band]; bin < ends[band]; bin++) sum += weights[weight++] * power[bin];
    const decades = Math.fround(Math.log10(Math.max(Math.fround(sum), POWER_FLOOR)));
    cells[band] = Math.fround(decades + 4) / 4;
  }
}

// The spectrum of 400 real samples from 200 complex ones: an FFT of Stockham's form with radices 4, 2, 5, 5.
const HALF = WINDOW_LENGTH / 2;
const RADICES = [4, 2, 5, 5];
const cosine = Float64Array.from({ length: WINDOW_LENGTH }, (_, k) => Math.cos((2 * Math.PI * k) / WINDOW_LENGTH));
const sine = Float64Array.from({ length: WINDOW_LENGTH }, (_, k) => -Math.sin((2 * Math.PI * k) / WINDOW_LENGTH));
let real = new Float64Array(HALF);
let imaginary = new Float64Array(HALF);
let nextReal = new Float64Array(HALF);
let nextImaginary = new Float64Array(HALF);

function powerSpectrum() {
  for (let at = 0; at < HALF; at++) {
    real[at] = windowed[2 * at];
    imaginary[at] = windowed[2 * at + 1];
  }
  transform();
  for (let bin = 0; bin <= HALF; bin++) {
    const one = bin % HALF;
    const other = (HALF - bin) % HALF;
    // Even samples have the spectrum (Z[k] + Z*[-k]) / 2, odd ones (Z[k] − Z*[-k]) / 2i
    const evenReal = (real[one] + real[other]) / 2;
    const evenImaginary = (imaginary[one] - imaginary[other]) / 2;
    const oddReal = (imaginary[one] + imaginary[other]) / 2;
    const oddImaginary = (real[other] - real[one]) / 2;
    const re = evenReal + cosine[bin] * oddReal - sine[bin] * oddImaginary;
    const im = evenImaginary + cosine[bin] * oddImaginary + sine[bin] * oddReal;
    power[bin] = re * re + im * im;
  }
}

function transform() {
  let length = HALF;
  let stride = 1;
  for (const radix of RADICES) {
    const step = length / radix;
    const turn = WINDOW_LENGTH / length; // of the table of 400 angles
    for (let at = 0; at < step; at++) {
      for (let output = 0; output < radix; output++) {
        const target = stride * (radix * at + output);
        nextReal.fill(0, target, target + stride);
        nextImaginary.fill(0, target, target + stride);
        for (let input = 0; input < radix; input++) {
          const angle = (((at + step * input) * output) % length) * turn;
          const source = stride * (at + step * input);
          const c = cosine[angle];
          const s = sine[angle];
          for (let q = 0; q < stride; q++) {
            nextReal[target + q] += c * real[source + q] - s * imaginary[source + q];
            nextImaginary[target + q] += c * imaginary[source + q] + s * real[source + q];
          }
        }
      }
    }
    [real, nextReal] = [nextReal, real];
    [imaginary, nextImaginary] = [nextImaginary, imaginary];
    length = step;
    stride *= radix;
  }
}

/** All that a stream (`push`, `finish`) makes of a waveform, in one Float32Array. */
export function wholeOf(stream, waveform) {
  const parts = [stream.push(waveform), stream.finish()];
  const all = new Float32Array(parts[0].length + parts[1].length);
  all.set(parts[0]);
  all.set(parts[1], parts[0].length);
  return all;
}
