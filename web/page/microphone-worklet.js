// Samples of the microphone, straight to the worker: the page's own thread never sees them.

const AT_ONCE = 4096; // samples, 85 ms at 48 kHz

class Microphone extends AudioWorkletProcessor {
  #port = null;
  #held = new Float32Array(AT_ONCE);
  #filled = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data.port) {
        this.#port = data.port;
        return;
      }
      this.#send(); // the end
      this.#port.postMessage({ type: "end" });
      this.#port = null;
    };
  }

  process([channels]) {
    const samples = channels[0];
    if (!samples || !this.#port) return true;
    if (this.#filled + samples.length > AT_ONCE) this.#send();
    this.#held.set(samples, this.#filled);
    this.#filled += samples.length;
    return true;
  }

  #send() {
    if (!this.#filled) return;
    const samples = this.#held.slice(0, this.#filled);
    this.#filled = 0;
    this.#port.postMessage({ type: "samples", samples }, [samples.buffer]);
  }
}

registerProcessor("amser-microphone", Microphone);
