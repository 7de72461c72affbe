// The envelope `application/vnd.amser.v1` around a codec's bytes (amser/wire.py, docs/wire.md).

import { HOP_LENGTH, SAMPLE_RATE } from "./log-mel.js";

export const MEDIA_TYPE = "application/vnd.amser.v1";
export const HEADER_BYTES = 48; // before the device id
const MAGIC = [0x41, 0x4d, 0x53, 0x52]; // AMSR
const VERSION = 1;
const KLT = 5;
const WHISPER80 = 1;
const UNCLAMPED = 1;
const FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH;
const MINIMUM_FRAMES = 10;
const FRAMES_APART = 1.01;
const CHECKSUM_BYTES = 4;
const LONGEST_DEVICE_ID = 64; // bytes of UTF-8

/** An envelope that cannot be sent, or bytes that are none. */
export class WireError extends Error {}

/**
 * The bytes of an utterance in `klt`.
 *
 * `seconds` is the duration of the audio, within a frame (10 ms) of `frames`; `capturedAt` a Date, when it began;
 * `utteranceId` a UUID, the same in every retry; `language` an ISO 639 code or null; `unclamped` true for a stream.
 * Throws WireError.
 */
export function pack({ payload, frames, seconds, deviceId, utteranceId, capturedAt, language = null, unclamped = false }) {
  const device = new TextEncoder().encode(deviceId);
  if (frames < MINIMUM_FRAMES) throw new WireError(`the utterance has ${frames} frames: ${MINIMUM_FRAMES} or more`);
  if (!(Math.abs(seconds * FRAMES_PER_SECOND - frames) <= FRAMES_APART)) {
    throw new WireError(`${seconds} s do not match ${frames} frames of 10 ms`);
  }
  if (language !== null && !/^[a-z]{2,3}$/.test(language)) throw new WireError(`the language is ${language}`);
  if (device.length < 1 || device.length > LONGEST_DEVICE_ID) throw new WireError("the device id has 1 to 64 bytes");
  const id = utteranceId.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(id)) throw new WireError(`the utterance id is ${utteranceId}: a UUID`);
  const bytes = new Uint8Array(HEADER_BYTES + device.length + payload.length + CHECKSUM_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set([...MAGIC, VERSION, KLT, WHISPER80, unclamped ? UNCLAMPED : 0]);
  view.setUint32(8, frames, true);
  view.setFloat32(12, seconds, true);
  bytes.set(new TextEncoder().encode(language ?? ""), 16);
  bytes[19] = device.length;
  for (let at = 0; at < 16; at++) bytes[20 + at] = parseInt(id.slice(2 * at, 2 * at + 2), 16);
  view.setBigInt64(36, BigInt(capturedAt.getTime()) * 1000n, true);
  view.setUint32(44, payload.length, true);
  bytes.set(device, HEADER_BYTES);
  bytes.set(payload, HEADER_BYTES + device.length);
  view.setUint32(bytes.length - CHECKSUM_BYTES, crc32c(bytes.subarray(0, -CHECKSUM_BYTES)), true);
  return bytes;
}

/** What `pack` was given, from its bytes. Throws WireError for bytes that are no envelope with `klt` inside. */
export function unpack(bytes) {
  if (bytes.length < HEADER_BYTES + CHECKSUM_BYTES || MAGIC.some((byte, at) => bytes[at] !== byte)) {
    throw new WireError("the bytes are no envelope");
  }
  const [version, codec, profile, flags] = bytes.subarray(4, 8);
  if (version !== VERSION || codec !== KLT || profile !== WHISPER80 || flags & ~UNCLAMPED) {
    throw new WireError("the envelope has another version, codec, profile or flags");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const start = HEADER_BYTES + bytes[19];
  const end = start + view.getUint32(44, true);
  if (end + CHECKSUM_BYTES !== bytes.length) throw new WireError("the envelope has another length than it announces");
  if (view.getUint32(end, true) !== crc32c(bytes.subarray(0, end))) throw new WireError("the bytes are corrupt");
  const id = Array.from(bytes.subarray(20, 36), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return {
    payload: bytes.slice(start, end),
    frames: view.getUint32(8, true),
    seconds: view.getFloat32(12, true),
    deviceId: new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(HEADER_BYTES, start)),
    utteranceId: id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
    capturedAt: new Date(Number(view.getBigInt64(36, true) / 1000n)),
    language: String.fromCharCode(...bytes.subarray(16, 19)).replaceAll("\0", "") || null,
    unclamped: Boolean(flags & UNCLAMPED),
  };
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli, RFC 3720). */
export function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
