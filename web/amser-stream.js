// Log-Mel → words while somebody speaks: docs/stream.md is the protocol, docs/browser.md what this offers.

import { StreamEncoder } from "./amser-codec.js";
import { BANDS } from "./codec/arrays.js";
import { joined } from "./codec/klt.js";

const MESSAGE_FRAMES = 32; // fewer messages cost fewer bytes, and words come a little later
const PROTOCOL = "amser.v1";
const HEADER = 3; // bytes before the blocks, which `start` has
const WINDOW = 32; // messages that may be on their way: more would only fill buffers of a proxy
const LIVES_MS = 10_000; // between two signs of life, also in a pause
const GIVE_UP_MS = 10_000; // without a connection on which something arrives
const FIRST_PAUSE_MS = 100; // between two attempts to connect; twice as long each time
const LONGEST_PAUSE_MS = 3000;

/** Utterances of one speaker. What has no answer yet is kept, and sent again after a cut: the cluster takes it once. */
export class Stream {
  #settings;
  #handlers;
  #encoder;
  #begun = false; // whether the encoder has written its header
  #header = null;
  #held = new Float32Array(0); // frames that make no message yet
  #frames = 0; // of the utterance under way
  #kept = []; // messages that may be wanted again
  #first = 0; // number of the first of them
  #sent = 0; // number of the next one that goes out over this connection
  #acknowledged = 0; // number of the first one that may still be on its way
  #ends = []; // of utterances without an answer: {at, frames}
  #endSent = false; // that of the first; a second one would hide it where there was no room for the first
  #utterance = 0; // whose answer comes next
  #session = null;
  #socket = null;
  #ready = false;
  #waits = false; // before it connects again
  #pause = FIRST_PAUSE_MS;
  #lostAt = null;
  #heardAt = 0;
  #timers = new Set();
  #closed = false;

  /** Bytes that have gone out, with those of WebSocket's frames. */
  bytesSent = 0;

  /**
   * `url` of the cluster, by default the one that this file came from; `key` of the operator's; `step` and `language` as
   * of `Client`. Handlers: `partial(message)`, `final(message)` and `failed(message)` get the cluster's messages;
   * `lost(problem)` is called once, if the stream cannot go on: `problem` is null where nobody answers.
   */
  constructor({ url = new URL("../", import.meta.url), key = "", step = "standard", language = null } = {}, handlers = {}) {
    const address = new URL("v1/stream", url);
    address.protocol = address.protocol.replace("http", "ws");
    this.#settings = { address, language, protocols: key ? [PROTOCOL, `bearer.${key}`] : [PROTOCOL] };
    this.#handlers = { partial() {}, final() {}, failed() {}, lost() {}, ...handlers };
    this.#encoder = new StreamEncoder(step);
  }

  /** Utterances that were ended and have no answer. */
  get waiting() {
    return this.#ends.length;
  }

  /** More frames of the utterance, 80 bands each. Returns the bytes that go out for them, as `StreamEncoder.push` does. */
  push(logMel) {
    this.#held = joined(this.#held, logMel);
    this.#frames += logMel.length / BANDS;
    const ready = Math.floor(this.#held.length / (MESSAGE_FRAMES * BANDS));
    let written = new Uint8Array(0);
    for (let message = 0; message < ready; message++) {
      const from = message * MESSAGE_FRAMES * BANDS;
      const blocks = this.#encoder.push(this.#held.subarray(from, from + MESSAGE_FRAMES * BANDS));
      written = joined(written, blocks);
      this.#keep(blocks);
    }
    this.#held = this.#held.slice(ready * MESSAGE_FRAMES * BANDS);
    this.#write();
    return written;
  }

  /** The utterance ends here; returns the bytes that were still to go out. Nothing happens where there are no frames. */
  end() {
    if (!this.#frames) return new Uint8Array(0);
    const written = joined(this.#encoder.push(this.#held), this.#encoder.finish());
    this.#keep(written);
    this.#ends.push({ at: this.#first + this.#kept.length, frames: this.#frames });
    this.#begun = false;
    this.#held = new Float32Array(0);
    this.#frames = 0;
    this.#write();
    return written;
  }

  /** Ends the stream; what has no answer gets none. */
  close() {
    this.#closed = true;
    this.#timers.forEach(clearTimeout);
    this.#socket?.close(1000);
  }

  /** The first blocks of an utterance have the stream's header in front, which is said once, in `start`. */
  #keep(blocks) {
    if (!blocks.length) return;
    if (!this.#begun) this.#header = blocks.slice(0, HEADER);
    this.#kept.push(this.#begun ? blocks : blocks.slice(HEADER));
    this.#begun = true;
  }

  #write() {
    if (this.#closed || this.#waits || (!this.#kept.length && !this.#ends.length)) return;
    if (!this.#socket) this.#connect();
    if (!this.#ready) return;
    for (;;) {
      const [end] = this.#ends;
      if (end && !this.#endSent && end.at <= this.#sent) {
        this.#say({ type: "end", ...end });
        this.#endSent = true;
      } else if (this.#sent < Math.min(this.#first + this.#kept.length, this.#acknowledged + WINDOW)) {
        this.#send(this.#kept[this.#sent - this.#first]);
        this.#sent += 1;
      } else {
        return;
      }
    }
  }

  #connect() {
    const { address, protocols } = this.#settings;
    let socket;
    try {
      socket = new WebSocket(address, protocols);
    } catch {
      this.#lose(null); // a key that no header can carry
      return;
    }
    this.#socket = socket;
    socket.onopen = () => this.#say(this.#start());
    socket.onmessage = ({ data }) => this.#read(JSON.parse(data));
    socket.onclose = () => this.#cut();
    this.#later(GIVE_UP_MS, () => {
      if (socket === this.#socket && !this.#ready) this.#drop();
    });
  }

  #start() {
    const header = Array.from(this.#header, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const start = { type: "start", format: "klt", header, ends: "client" };
    if (this.#settings.language) start.language = this.#settings.language;
    if (this.#session) start.session = this.#session;
    if (this.#first || this.#utterance) Object.assign(start, { first: this.#first, utterance: this.#utterance });
    return start;
  }

  #read(message) {
    this.#heardAt = performance.now();
    const read = {
      ready: ({ session, next }) => {
        this.#session = session;
        this.#sent = next;
        this.#acknowledged = next;
        this.#endSent = false;
        this.#ready = true;
        this.#live();
        this.#write();
      },
      ack: ({ next, first }) => {
        this.#acknowledged = next;
        this.#goesOn();
        this.#forget(first);
        this.#write();
      },
      partial: (partial) => this.#handlers.partial(partial),
      final: (final) => this.#answered(final, this.#handlers.final),
      failed: (failed) => this.#answered(failed, this.#handlers.failed),
      refused: ({ again_s: again }) => this.#later(1000 * again, () => this.#endAgain()),
      error: ({ problem, again_s: again }) => {
        if (again === undefined || 1000 * again > GIVE_UP_MS) this.#lose(problem);
        else this.#pause = Math.max(this.#pause, 1000 * again);
      },
    }[message.type];
    read?.(message); // `pong` and `reconnect` want nothing: the socket is closed after the latter
  }

  #answered(message, handler) {
    if (message.utterance !== this.#utterance) return; // it came before a cut
    this.#utterance += 1;
    while (this.#ends.length && this.#ends[0].at <= message.next) this.#ends.shift();
    this.#goesOn();
    this.#forget(message.next);
    this.#endAgain();
    handler(message);
  }

  #endAgain() {
    this.#endSent = false;
    this.#write();
  }

  #goesOn() {
    this.#pause = FIRST_PAUSE_MS;
    this.#lostAt = null;
  }

  #forget(first) {
    this.#kept.splice(0, Math.max(0, first - this.#first));
    this.#first = Math.max(this.#first, first);
  }

  /** The connection is gone: another one takes up where it was, as soon as there is something to say. */
  #cut() {
    this.#socket = null;
    this.#ready = false;
    if (this.#closed) return;
    this.#lostAt ??= performance.now();
    const hasWork = this.#kept.length > 0 || this.#ends.length > 0;
    if (this.#session === null || (hasWork && performance.now() - this.#lostAt > GIVE_UP_MS)) {
      this.#lose(null);
      return;
    }
    this.#waits = true;
    this.#later(this.#pause, () => {
      this.#waits = false;
      this.#write();
    });
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    if (!hasWork) this.#lostAt = null;
  }

  /** Of a connection on which nothing comes: its end may not be told for minutes. */
  #drop() {
    const socket = this.#socket;
    Object.assign(socket, { onopen: null, onmessage: null, onclose: null });
    socket.close();
    this.#cut();
  }

  #lose(problem) {
    if (this.#closed) return;
    this.close();
    this.#handlers.lost(problem);
  }

  #live() {
    const socket = this.#socket;
    this.#later(LIVES_MS, () => {
      if (socket !== this.#socket) return;
      if (performance.now() - this.#heardAt > 1.5 * LIVES_MS) {
        this.#drop();
        return;
      }
      this.#say({ type: "ping" });
      this.#live();
    });
  }

  #later(milliseconds, call) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      call();
    }, milliseconds);
    this.#timers.add(timer);
  }

  #say(message) {
    this.#send(JSON.stringify(message));
  }

  #send(message) {
    this.bytesSent += message.length + (message.length < 126 ? 6 : 8);
    this.#socket.send(message);
  }
}
