// Envelopes → answers of `POST /v1/emotion`, one after another.

import { MEDIA_TYPE } from "../amser-codec.js";

const ATTEMPTS = 4;
const LONGEST_WAIT_S = 10;
const AGAIN = [429, 502, 503, 504];

/** A refusal of the cluster, with the status and what its problem document says. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the cluster answers ${status}`);
    this.status = status;
  }
}

/** Sends one envelope at a time, so that answers come in order and a slow cluster is not pressed. */
export class Cluster {
  #key;
  #last = Promise.resolve();

  /** `key` returns what is to be shown, or an empty string. */
  constructor(key) {
    this.#key = key;
  }

  /** {answer, serverTiming, milliseconds} of an envelope. Throws Refused, or TypeError where nobody answers. */
  recognise(envelope) {
    const mine = this.#last.then(() => this.#send(envelope));
    this.#last = mine.catch(() => {});
    return mine;
  }

  async #send(body) {
    for (let attempt = 1; ; attempt++) {
      const started = performance.now();
      const key = this.#key();
      const headers = { "Content-Type": MEDIA_TYPE, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
      const response = await fetch(new URL("../../v1/emotion", import.meta.url), { method: "POST", body, headers });
      if (response.ok) {
        const serverTiming = response.headers.get("Server-Timing") ?? "";
        const answer = await response.json();
        return { answer, serverTiming, milliseconds: performance.now() - started };
      }
      const problem = await response.json().catch(() => ({}));
      if (!AGAIN.includes(response.status) || attempt === ATTEMPTS) throw new Refused(response.status, problem);
      const wait = Math.min(LONGEST_WAIT_S, Number(response.headers.get("Retry-After")) || attempt);
      await new Promise((done) => setTimeout(done, 1000 * wait));
    }
  }
}

/** [stage, milliseconds] of a Server-Timing header. */
export function stagesOf(serverTiming) {
  return [...serverTiming.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, stage, duration]) => [stage, Number(duration)]);
}
