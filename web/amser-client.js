// Envelopes → answers of a cluster, with retries: what a page or Node needs besides the codec. docs/browser.md.

import { BANDS, MEDIA_TYPE, PROFILES, SAMPLE_RATE, clampToFloor, encode, logMel, pack, resample } from "./amser-codec.js";

const ATTEMPTS = 4;
const LONGEST_WAIT_S = 10;
const ANSWER_WITHIN_S = 40; // longer than a cluster takes
const AGAIN = [408, 429, 502, 503, 504]; // statuses that another attempt may end

/** A refusal of the cluster: `status`, and its problem document (RFC 9457) as `problem`. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the cluster answers ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

export class Client {
  #url;
  #key;
  #fields;
  #step;

  /**
   * `url` of the cluster, by default the one that this file came from; `key` is a string, or a function that returns one;
   * `deviceId` of 1 to 64 bytes; `language` an ISO 639 code or null; `step` a name in PROFILES, or an index.
   */
  constructor({ url = new URL("../", import.meta.url), key = "", deviceId = "web", language = null, step = "standard" } = {}) {
    this.#url = new URL("v1/emotion", url);
    this.#key = typeof key === "function" ? key : () => key;
    this.#fields = { deviceId, language };
    this.#step = Object.hasOwn(PROFILES, step) ? PROFILES[step] : step;
  }

  /** The answer to up to 30 s of speech, Float32Array of ±1. Throws Refused, RangeError, or TypeError where nobody answers. */
  async recognize(samples, rate, { capturedAt = new Date(), utteranceId = crypto.randomUUID() } = {}) {
    const speech = resample(samples, rate);
    const mel = clampToFloor(logMel(speech));
    const [frames, seconds] = [mel.length / BANDS, speech.length / SAMPLE_RATE];
    const payload = encode(mel, this.#step);
    const { answer } = await this.send(pack({ ...this.#fields, payload, frames, seconds, capturedAt, utteranceId }));
    return answer;
  }

  /** {answer, serverTiming, milliseconds} of an envelope. A cluster that is busy is asked again. Throws as `recognize`. */
  async send(body) {
    for (let attempt = 1; ; attempt++) {
      const started = performance.now();
      const key = this.#key();
      const headers = { "Content-Type": MEDIA_TYPE, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
      const response = await fetch(this.#url, { method: "POST", body, headers, signal: AbortSignal.timeout(1000 * ANSWER_WITHIN_S) });
      if (response.ok) {
        const serverTiming = response.headers.get("Server-Timing") ?? "";
        const answer = await response.json();
        return { answer, serverTiming, milliseconds: performance.now() - started };
      }
      const problem = await response.json().catch(() => ({}));
      const asked = Number(response.headers.get("Retry-After") ?? attempt);
      const wait = (Number.isFinite(asked) ? asked : attempt) + Math.random(); // so that clients do not come back together
      const helps = AGAIN.includes(response.status) && !String(problem.type).endsWith("/body-too-slow");
      if (!helps || attempt === ATTEMPTS || wait > LONGEST_WAIT_S) throw new Refused(response.status, problem);
      await new Promise((done) => setTimeout(done, 1000 * wait));
    }
  }
}
