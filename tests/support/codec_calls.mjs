// Calls functions of web/amser-codec.js as tests ask for: a JSON array of [name, argument, …] on standard input, a JSON
// array of results on standard output. Typed arrays travel as {type, data}, data in base64. A page can import it too.

const TYPES = { Float32Array, Uint8Array };

const functions = {
  encode: (codec, logMel, step) => codec.encode(logMel, step),
  decode: (codec, payload, frames) => codec.decode(payload, frames),
  stream: (codec, logMel, step, level, cuts) => {
    const encoder = new codec.StreamEncoder(step, level);
    const blocks = pieces(logMel, cuts.map((frame) => frame * codec.BANDS)).map((piece) => encoder.push(piece));
    return joined([...blocks, encoder.finish()], Uint8Array);
  },
  unstream: (codec, payload, cuts) => {
    const decoder = new codec.StreamDecoder();
    return joined(pieces(payload, cuts).map((piece) => decoder.push(piece)), Float32Array);
  },
  logMel: (codec, waveform, clamp) => {
    const mel = codec.logMel(waveform);
    return clamp ? codec.clampToFloor(mel) : mel;
  },
  logMelInPieces: (codec, waveform, cuts) => {
    const stream = new codec.StreamingLogMel();
    return joined([...pieces(waveform, cuts).map((piece) => stream.push(piece)), stream.finish()], Float32Array);
  },
  resample: (codec, waveform, rate) => codec.resample(waveform, rate),
  resampleInPieces: (codec, waveform, rate, cuts) => {
    const resampler = new codec.Resampler(rate);
    return joined([...pieces(waveform, cuts).map((piece) => resampler.push(piece)), resampler.finish()], Float32Array);
  },
  pack: (codec, fields) => codec.pack({ ...fields, capturedAt: new Date(fields.capturedAt) }),
  unpack: (codec, bytes) => codec.unpack(bytes),
  envelopeOfWaveform: (codec, waveform, step, fields) => {
    const mel = codec.clampToFloor(codec.logMel(waveform));
    const [payload, frames] = [codec.encode(mel, step), mel.length / codec.BANDS];
    const seconds = waveform.length / codec.SAMPLE_RATE;
    return codec.pack({ ...fields, payload, frames, seconds, capturedAt: new Date(fields.capturedAt) });
  },
};

/** The results of calls, or {error} for what a call throws. */
export function answer(codec, calls) {
  return calls.map(([name, ...given]) => {
    try {
      return written(functions[name](codec, ...given.map(read)));
    } catch (error) {
      return { error: `${error.constructor.name}: ${error.message}` };
    }
  });
}

function pieces(array, cuts) {
  return [0, ...cuts].map((start, at) => array.subarray(start, cuts[at] ?? array.length));
}

function joined(arrays, Type) {
  return Type.from(arrays.flatMap((array) => Array.from(array)));
}

function read(value) {
  if (value && typeof value === "object" && value.type in TYPES) {
    const bytes = Uint8Array.from(atob(value.data), (character) => character.charCodeAt(0));
    return new TYPES[value.type](bytes.buffer);
  }
  if (value && typeof value === "object" && !Array.isArray(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, read(each)]));
  }
  return value;
}

function written(value) {
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return { type: value.constructor.name, data: btoa(text) };
  }
  if (value && typeof value === "object" && !(value instanceof Date)) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, written(each)]));
  }
  return value;
}

if (globalThis.process?.stdin) {
  let input = "";
  for await (const piece of process.stdin) input += piece;
  const codec = await import("../../web/amser-codec.js");
  process.stdout.write(JSON.stringify(answer(codec, JSON.parse(input))));
}
