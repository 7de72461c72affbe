// Log-Mel → pixels: dark where it is quiet, from blue over green to a warm white where it is loud.

import { BANDS } from "../amser-codec.js";

const STOPS = [[16, 18, 40], [32, 58, 110], [18, 116, 130], [92, 170, 96], [240, 190, 72], [255, 244, 214]];
const DECADES = 2; // eight, in Whisper's scale
const SHADES = 256;
const palette = Array.from({ length: SHADES }, (_, shade) => {
  const position = (shade / (SHADES - 1)) * (STOPS.length - 1);
  const low = Math.min(Math.floor(position), STOPS.length - 2);
  return STOPS[low].map((part, at) => Math.round(part + (STOPS[low + 1][at] - part) * (position - low)));
});

/** RGBA of a frame-major log-Mel, a column a frame and low bands below; `loudest` is shown brightest. */
export function pixelsOf(logMel, loudest) {
  const frames = logMel.length / BANDS;
  const pixels = new Uint8ClampedArray(4 * frames * BANDS);
  for (let frame = 0; frame < frames; frame++) {
    for (let band = 0; band < BANDS; band++) {
      const height = (logMel[frame * BANDS + band] - loudest) / DECADES + 1;
      const [red, green, blue] = palette[Math.round(Math.min(1, Math.max(0, height)) * (SHADES - 1))];
      const at = 4 * ((BANDS - 1 - band) * frames + frame);
      pixels[at] = red;
      pixels[at + 1] = green;
      pixels[at + 2] = blue;
      pixels[at + 3] = 255;
    }
  }
  return pixels;
}
