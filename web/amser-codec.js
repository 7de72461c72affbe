// Speech → a hundredth of its bytes, in a browser or any other JavaScript: log-Mel, the codec klt and the envelope.
//
// One import, no build step, no request to anywhere. docs/browser.md has every function.

export { BANDS, PROFILES } from "./codec/arrays.js";
export { MEDIA_TYPE, WireError, pack, unpack } from "./codec/envelope.js";
export { MalformedPayload, StreamDecoder, StreamEncoder, clampToFloor, decode, encode } from "./codec/klt.js";
export { HOP_LENGTH, SAMPLE_RATE, StreamingLogMel, logMel } from "./codec/log-mel.js";
export { Resampler, resample } from "./codec/resample.js";
