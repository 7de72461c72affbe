// Frames → utterances: cuts a recording at its pauses, so that nothing is sent where nobody speaks.
//
// By loudness alone: the cluster judges by itself whether somebody speaks in what it gets.

import { BANDS } from "../amser-codec.js";

const LEAST = -0.3; // of a frame's loudest band, in Whisper's scale: quieter is no speech
const BELOW_PEAK = 0.8; // 32 dB
const ABOVE_NOISE = 0.2; // 8 dB
const REMEMBERED = 500; // frames, 5 s, of which peak and noise are known
const EVERY = 10; // frames they are looked for again
const BEGIN = 6; // loud ones of the last BEGIN_OF frames begin an utterance
const BEGIN_OF = 10;
const PAUSE = 80; // frames, 0.8 s, end it
const PADDING = 20; // frames kept around it
const LEAST_SPEECH = 15; // loud frames; less is a click
const LONGEST = 1500; // frames, 15 s; longer ones are cut at their quietest frame
const LONG = 1000; // live: from 10 s on the next gap between words ends it, since what is quietest is not known yet
const GAP = 15;

/**
 * Cuts the frames of one recording. `push` and `finish` return utterances: {start, frames, rest}, with frame-major log-Mel
 * in `frames`; `rest` are those of them that `live` has not returned. `isLive`: what was returned is not taken back.
 */
export class Utterances {
  #isLive;
  #live = 0; // number of the frame that `live` returns next
  #frames = []; // Float32Array(80) each, from frame `#first` on
  #first = 0;
  #loudness = []; // of the frames held
  #history = []; // of the last REMEMBERED
  #flags = []; // loud or not, of the frames held
  #start = -1; // of the utterance under way
  #loud = 0; // frames in it
  #quiet = 0; // frames since the last loud one
  #peak = -Infinity;
  #noise = -Infinity;

  constructor(isLive = false) {
    this.#isLive = isLive;
  }

  /** Whether an utterance is under way. */
  get speaking() {
    return this.#start >= 0;
  }

  push(logMel) {
    const found = [];
    for (let at = 0; at < logMel.length; at += BANDS) {
      const utterance = this.#take(logMel.slice(at, at + BANDS));
      if (utterance) found.push(utterance);
    }
    return found;
  }

  /** {start, frames} that an utterance under way has got for sure since the last call; null where there are none. */
  live() {
    if (!this.speaking || this.#loud < LEAST_SPEECH) return null;
    const until = this.#first + this.#frames.length - Math.max(0, this.#quiet - PADDING);
    if (until <= this.#live) return null;
    const frames = this.#between(this.#live, until);
    this.#live = until;
    return { start: this.#start, frames };
  }

  finish() {
    return this.speaking && this.#loud >= LEAST_SPEECH ? [this.#cut(this.#first + this.#frames.length)] : [];
  }

  #take(frame) {
    const loudness = frame.reduce((most, cell) => Math.max(most, cell), -Infinity);
    this.#frames.push(frame);
    this.#loudness.push(loudness);
    this.#remember(loudness);
    const loud = loudness > LEAST && loudness > this.#peak - BELOW_PEAK && loudness > this.#noise + ABOVE_NOISE;
    this.#flags.push(loud);
    const now = this.#first + this.#frames.length;
    if (!this.speaking) {
      const recent = this.#flags.slice(-BEGIN_OF).filter(Boolean).length;
      if (recent >= BEGIN) {
        this.#start = Math.max(this.#first, now - BEGIN_OF - PADDING);
        this.#live = this.#start;
        this.#loud = recent;
        this.#quiet = 0;
      } else {
        this.#forget(now - BEGIN_OF - PADDING);
      }
      return null;
    }
    this.#loud += loud ? 1 : 0;
    this.#quiet = loud ? 0 : this.#quiet + 1;
    if (this.#quiet >= PAUSE) {
      const utterance = this.#loud >= LEAST_SPEECH ? this.#cut(now - PAUSE + PADDING) : null;
      this.#end();
      return utterance;
    }
    const length = now - this.#start;
    if (length < LONGEST && !(this.#isLive && length >= LONG && this.#quiet >= GAP)) return null;
    const utterance = this.#cut(this.#isLive ? now : this.#quietest(now));
    this.#start = utterance.start + utterance.frames.length / BANDS;
    this.#loud = this.#flags.filter(Boolean).length; // what is left of them
    return utterance;
  }

  #remember(loudness) {
    this.#history.push(loudness);
    if (this.#history.length > REMEMBERED) this.#history.shift();
    this.#peak = Math.max(this.#peak, loudness);
    if ((this.#first + this.#frames.length) % EVERY) return;
    const sorted = Float32Array.from(this.#history).sort();
    this.#peak = sorted[sorted.length - 1];
    this.#noise = sorted.length >= 100 ? sorted[Math.floor(sorted.length / 20)] : -Infinity;
  }

  #cut(end) {
    const frames = this.#between(this.#start, end);
    const rest = this.#between(this.#live, end);
    const utterance = { start: this.#start, frames, rest };
    this.#live = end;
    this.#forget(end);
    return utterance;
  }

  #between(begin, end) {
    const frames = this.#frames.slice(begin - this.#first, end - this.#first);
    const logMel = new Float32Array(frames.length * BANDS);
    frames.forEach((frame, at) => logMel.set(frame, at * BANDS));
    return logMel;
  }

  #quietest(now) {
    const third = Math.floor(LONGEST / 3);
    const last = this.#loudness.slice(-third);
    return now - third + last.indexOf(Math.min(...last)) + 1;
  }

  #end() {
    this.#start = -1;
    this.#loud = 0;
    this.#quiet = 0;
  }

  #forget(until) {
    const count = Math.max(0, until - this.#first);
    this.#frames.splice(0, count);
    this.#loudness.splice(0, count);
    this.#flags.splice(0, count);
    this.#first += count;
  }
}
