// A WAV file's samples as they are: a browser would resample them on the way.

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

/** {rate, channels: [Float32Array, …]} of a WAV in PCM or floating point; null for anything else. */
export function readWav(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 12 || name(view, 0) !== "RIFF" || name(view, 8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= buffer.byteLength; ) {
    const start = at + 8;
    const left = buffer.byteLength - start;
    const size = Math.min(view.getUint32(at + 4, true), left); // a header that claims more is that of a stream
    if (name(view, at) === "fmt " && size >= 16) {
      const kind = view.getUint16(start, true);
      format = {
        kind: kind === EXTENSIBLE && size >= 26 ? view.getUint16(start + 24, true) : kind,
        count: view.getUint16(start + 2, true),
        rate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
    } else if (name(view, at) === "data" && format) {
      return samplesOf(view, start, size, format);
    }
    at = start + size + (size % 2);
  }
  return null;
}

function samplesOf(view, start, size, { kind, count, rate, bits }) {
  const read = {
    [`${PCM} 8`]: (at) => (view.getUint8(at) - 128) / 2 ** 7,
    [`${PCM} 16`]: (at) => view.getInt16(at, true) / 2 ** 15,
    [`${PCM} 24`]: (at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23,
    [`${PCM} 32`]: (at) => view.getInt32(at, true) / 2 ** 31,
    [`${FLOAT} 32`]: (at) => view.getFloat32(at, true),
    [`${FLOAT} 64`]: (at) => view.getFloat64(at, true),
  }[`${kind} ${bits}`];
  if (!read || !count) return null;
  const bytes = bits / 8;
  const frames = Math.floor(size / (bytes * count));
  const channels = Array.from({ length: count }, (_, channel) =>
    Float32Array.from({ length: frames }, (__, frame) => read(start + (frame * count + channel) * bytes)),
  );
  return { rate, channels };
}

function name(view, at) {
  return String.fromCharCode(view.getUint8(at), view.getUint8(at + 1), view.getUint8(at + 2), view.getUint8(at + 3));
}
