// Microphone and files: opens them and hands them to the worker.

const LONGEST_END_MS = 2000;
const DECODED_AT = 48000; // Hz, what most compressed recordings have inside

/** What is heard, as messages of `speech-worker.js`, to the handlers by their type. */
export class Listener {
  #worker = new Worker(new URL("./speech-worker.js", import.meta.url), { type: "module" });
  #handlers;
  #settings;
  #microphone = null;
  #ended = () => {}; // called when the worker has heard all

  /** `settings` returns what the worker is to know of a recording; `canvases` are drawn on by the worker alone. */
  constructor(settings, canvases, handlers) {
    this.#settings = settings;
    this.#handlers = handlers;
    this.#worker.onmessage = ({ data }) => {
      if (data.type === "undecoded") {
        this.#decode(data);
        return;
      }
      if (data.type === "end") this.#ended();
      handlers[data.type](data);
    };
    const [heard, rebuilt] = canvases.map((canvas) => canvas.transferControlToOffscreen());
    this.#worker.postMessage({ type: "canvases", heard, rebuilt }, [heard, rebuilt]);
    this.#worker.onerror = () => handlers.trouble({ message: "this browser cannot run the codec" });
  }

  get listening() {
    return this.#microphone !== null;
  }

  /** Opens the microphone. Throws what the browser does where it may not. */
  async start() {
    if (!navigator.mediaDevices) throw new Error("a microphone needs HTTPS, or a page from this machine");
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const context = new AudioContext();
    try {
      await context.audioWorklet.addModule(new URL("./microphone-worklet.js", import.meta.url));
      const node = new AudioWorkletNode(context, "amser-microphone", { numberOfOutputs: 0 });
      const { port1, port2 } = new MessageChannel();
      const settings = { ...this.#settings(), live: true };
      this.#worker.postMessage({ type: "begin", rate: context.sampleRate, settings });
      this.#worker.postMessage({ type: "port", port: port2 }, [port2]);
      node.port.postMessage({ port: port1 }, [port1]);
      context.createMediaStreamSource(stream).connect(node);
      this.#microphone = { stream, context, node };
      stream.getAudioTracks()[0].onended = () => this.#handlers.lost();
    } catch (error) {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      throw error;
    }
  }

  /** Closes the microphone; what was said last still comes. */
  async stop() {
    if (!this.#microphone) return;
    const { stream, context, node } = this.#microphone;
    this.#microphone = null;
    const ended = new Promise((done) => {
      this.#ended = done;
      setTimeout(done, LONGEST_END_MS);
    });
    node.port.postMessage({ end: true }); // the worklet sends what it holds
    await ended;
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    this.#worker.postMessage({ type: "end" }); // where the worklet did not come to it
  }

  /** Reads a file, which the browser has to be able to decode where it is no WAV. */
  async open(file) {
    const buffer = await file.arrayBuffer();
    this.#worker.postMessage({ type: "file", buffer, settings: this.#settings() }, [buffer]);
  }

  async #decode({ buffer, settings }) {
    let audio;
    try {
      audio = await new OfflineAudioContext(1, 1, DECODED_AT).decodeAudioData(buffer);
    } catch {
      const message = "this browser cannot decode that recording; WAV always works";
      this.#handlers.trouble({ message, round: settings.round });
      return;
    }
    const channels = Array.from({ length: audio.numberOfChannels }, (_, channel) => audio.getChannelData(channel).slice());
    const message = { type: "decoded", rate: audio.sampleRate, channels, settings };
    this.#worker.postMessage(message, channels.map((channel) => channel.buffer));
  }
}
