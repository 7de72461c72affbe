// Two canvases on one axis of time: what was heard, and what the bytes that were sent still hold. The worker draws them.

import { BANDS } from "../amser-codec.js";

const LIVE_FRAMES = 800; // 8 s
const MOST_FRAMES = 3000;

export class Spectrogram {
  #heard;
  #rebuilt;
  #frames = 0; // drawn so far

  /** Of two OffscreenCanvas. */
  constructor(heard, rebuilt) {
    this.#heard = heard.getContext("2d");
    this.#rebuilt = rebuilt.getContext("2d");
  }

  /** Empties both, for so many frames; without a number for as many as fit while somebody speaks. */
  begin(frames = LIVE_FRAMES) {
    this.#frames = 0;
    for (const { canvas } of [this.#heard, this.#rebuilt]) {
      canvas.width = Math.max(100, Math.min(frames, MOST_FRAMES));
      canvas.height = BANDS;
    }
  }

  /** New frames at the right edge; everything before moves left once the canvas is full. */
  add(count, pixels) {
    const { width } = this.#heard.canvas;
    const moved = Math.max(0, Math.min(this.#frames + count - width, count));
    this.#frames += count;
    if (moved) [this.#heard, this.#rebuilt].forEach((context) => move(context, moved));
    this.#heard.putImageData(new ImageData(pixels, count, BANDS), this.#at(this.#frames - count), 0);
  }

  /** The reconstruction of frames that were sent. */
  sent(start, frames, pixels) {
    this.#rebuilt.putImageData(new ImageData(pixels, frames, BANDS), this.#at(start), 0);
  }

  #at(frame) {
    return frame - Math.max(0, this.#frames - this.#heard.canvas.width);
  }
}

function move(context, columns) {
  const { canvas } = context;
  context.globalCompositeOperation = "copy";
  context.drawImage(canvas, -columns, 0);
  context.globalCompositeOperation = "source-over";
}
