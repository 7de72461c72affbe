// One envelope at a time to the cluster, so that answers come in order and a slow cluster is not pressed.

import { Client } from "../amser-client.js";

export { Refused } from "../amser-client.js";

export class Cluster {
  #client;
  #last = Promise.resolve();

  /** `key` returns what is to be shown, or an empty string. */
  constructor(key) {
    this.#client = new Client({ key });
  }

  /** See `Client.send`. */
  recognise(envelope) {
    const mine = this.#last.then(() => this.#client.send(envelope));
    this.#last = mine.catch(() => {});
    return mine;
  }
}

/** [stage, milliseconds] of a Server-Timing header. */
export function stagesOf(serverTiming) {
  return [...serverTiming.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, stage, duration]) => [stage, Number(duration)]);
}
