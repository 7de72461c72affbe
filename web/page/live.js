// Utterances over a socket while they are spoken. Where there is no socket to be had, they go whole, as envelopes.

import { BANDS, StreamDecoder } from "../amser-codec.js";
import { Stream } from "../amser-stream.js";

/** The speech of one opening of the microphone. */
export class Live {
  #stream;
  #told; // see the constructor
  #decoder = new StreamDecoder();
  #spoken = []; // utterances without an answer
  #start = 0; // frame of the one under way
  #isNew = true; // nothing of it has gone out
  #shown = 0; // frame that is rebuilt next
  #payload = []; // bytes of the one under way
  #spent = 0; // ms in the codec for it
  #pushed = 0; // frames of all
  #answeredFrames = 0;
  #reported = 0; // bytes of the stream that an answer has told of
  #ending = false;

  /**
   * `settings` of a recording. Handlers: `partial(start, message)`; `answer(utterance, answer)`; `failed(start, problem)`;
   * `rebuilt(frame, logMel)`, what the cluster will see from a frame on; `waiting(count, frames)`: utterances without an
   * answer, and frames that were sent so far; `lost(utterances)`, which are without an answer and go another way, as does
   * what comes after them.
   */
  constructor(settings, handlers) {
    this.#told = handlers;
    this.#stream = new Stream(settings, {
      partial: (message) => handlers.partial(this.#spoken[0]?.start ?? this.#start, message),
      final: ({ reason, answer }) => this.#answered(reason, (utterance) => handlers.answer(utterance, answer)),
      failed: ({ reason, problem }) => this.#answered(reason, ({ start }) => handlers.failed(start, problem)),
      lost: () => {
        this.#stream = null;
        handlers.lost(this.#spoken.splice(0));
        handlers.waiting(0, this.#answeredFrames);
      },
    });
  }

  /** Whether it can be used. */
  get isOpen() {
    return this.#stream !== null;
  }

  /** Frames of the utterance that began at a frame. */
  push({ start, frames }) {
    this.#start = start;
    if (this.#isNew) this.#shown = start;
    this.#isNew = false;
    this.#pushed += frames.length / BANDS;
    this.#out(() => this.#stream.push(frames));
  }

  /** The utterance is over, see `Utterances`; false where it has to go another way. */
  end(utterance) {
    const { start, frames, rest } = utterance;
    this.push({ start, frames: rest });
    if (!this.isOpen) return false;
    this.#out(() => this.#stream.end(), start + frames.length / BANDS);
    if (!this.isOpen) return false;
    const timings = { "log-mel": utterance.spent, klt: this.#spent };
    this.#spoken.push({ start, frames, timings, payload: joinedBytes(this.#payload), endedAt: performance.now() });
    this.#decoder = new StreamDecoder();
    this.#isNew = true;
    this.#payload = [];
    this.#spent = 0;
    this.#changed();
    return true;
  }

  /** Closes the socket once everything is answered. */
  finish() {
    this.#ending = true;
    this.#changed();
  }

  /** What `write` sends; rebuilt up to a frame, since the last block is padded. */
  #out(write, until = Infinity) {
    const started = performance.now();
    const bytes = write();
    this.#spent += performance.now() - started;
    if (!bytes.length) return;
    this.#payload.push(bytes);
    const logMel = this.#decoder.push(bytes).subarray(0, (until - this.#shown) * BANDS);
    this.#told.rebuilt(this.#shown, logMel);
    this.#shown += logMel.length / BANDS;
  }

  #answered(reason, tell) {
    if (reason !== "client") return; // the cluster ends what has 30 s, and `Utterances` ends it before
    const { start, frames, timings, payload, endedAt } = this.#spoken.shift();
    this.#answeredFrames += frames.length / BANDS;
    const sent = this.#stream.bytesSent - this.#reported;
    this.#reported += sent;
    const milliseconds = performance.now() - endedAt;
    tell({ start, frames, timings, payload, bytes: payload.length, sent, milliseconds });
    this.#changed();
  }

  #changed() {
    this.#told.waiting(this.#spoken.length, this.#pushed);
    if (this.#ending && !this.#spoken.length) this.#stream?.close();
  }
}

function joinedBytes(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
