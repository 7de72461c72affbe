// Samples → spectrogram, utterances, envelopes: all of the computing, off the page's own thread.
//
// In:  {type: "canvases", heard, rebuilt}  to draw on
//      {type: "begin", rate, settings}     a recording of any sample rate; settings: {step, language, deviceId, key,
//                                          round}, and `live` where it is spoken now and may go over a socket
//      {type: "port", port}                where the microphone's samples will come from
//      {type: "samples", samples}, {type: "end"}
//      {type: "file", buffer, settings}    a whole file; {type: "decoded", rate, channels, settings} where it is no WAV
// Out: {type: "progress", frames}          heard so far
//      {type: "utterance", …}              an envelope for the cluster, see `send`
//      {type: "partial", start, …}, {type: "answer", …}, {type: "failed", start, problem}, {type: "waiting", count}
//                                          of the socket, see `live.js`
//      {type: "end", frames}, {type: "undecoded", buffer}, {type: "trouble", message}
// Each has the `round` of the settings that came with its recording.

import {
  BANDS, HOP_LENGTH, Resampler, SAMPLE_RATE, StreamingLogMel, clampToFloor, decode, encode, pack,
} from "../amser-codec.js";
import { pixelsOf } from "./colours.js";
import { Live } from "./live.js";
import { Spectrogram } from "./spectrogram.js";
import { Utterances } from "./utterances.js";
import { readWav } from "./wav.js";

const AT_ONCE = SAMPLE_RATE / 2; // samples of a file between two messages
const FAINTEST_PEAK = 0.4; // the colours' scale begins there, so that silence stays dark
const CANCELLED = 0.03; // of a channel's power is left in the mean of all: they are in opposite phase
const FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH;
const TOLD_EVERY = 100; // frames

let recording = null;
let spectrogram = null;

self.onmessage = receive;

function receive({ data }) {
  try {
    handlers[data.type](data);
  } catch (error) {
    tell({ type: "trouble", message: error.message });
  }
}

function tell(message, transferred = []) {
  self.postMessage({ ...message, round: recording?.settings.round }, transferred);
}

const handlers = {
  canvases: ({ heard, rebuilt }) => {
    spectrogram = new Spectrogram(heard, rebuilt);
  },
  begin: ({ rate, settings }) => begin(rate, settings),
  port: ({ port }) => {
    const mine = recording;
    port.onmessage = (message) => {
      if (recording === mine) receive(message);
    };
  },
  samples: ({ samples }) => hear(samples),
  end,
  file: ({ buffer, settings }) => {
    const wav = readWav(buffer);
    if (!wav) self.postMessage({ type: "undecoded", buffer, settings }, [buffer]);
    else whole(wav, settings);
  },
  decoded: (audio) => whole(audio, audio.settings),
};

function begin(rate, settings, frames) {
  spectrogram.begin(frames);
  const startedAt = Date.now();
  recording = {
    settings,
    resampler: new Resampler(rate),
    logMel: new StreamingLogMel(),
    live: settings.live ? live(settings, startedAt) : null,
    utterances: new Utterances(settings.live),
    frames: 0,
    loudest: FAINTEST_PEAK,
    spent: 0, // ms for the log-Mel since the last utterance
    startedAt,
  };
}

/** Where its answers go: told of with the recording's round, also when another one has begun. */
function live(settings, startedAt) {
  const { round } = settings;
  const tellOf = (message) => self.postMessage({ ...message, round });
  return new Live(settings, {
    partial: (start, { stable, text, emotion, confidence, uncertain }) =>
      tellOf({ type: "partial", start, stable, text, emotion, confidence, uncertain }),
    answer: ({ start, frames, ...spoken }, answer) =>
      tellOf({ type: "answer", utterance: { ...about(settings, startedAt, start, frames), ...spoken }, answer }),
    failed: (start, problem) => tellOf({ type: "failed", start, problem }),
    waiting: (count, frames) => tellOf({ type: "waiting", count, spoken: frames / FRAMES_PER_SECOND }),
    rebuilt: (frame, logMel) => {
      if (recording?.settings === settings) rebuilt(frame, logMel);
    },
    lost: (utterances) => utterances.forEach((utterance) => post(settings, startedAt, utterance)),
  });
}

function rebuilt(frame, logMel) {
  if (logMel.length) spectrogram.sent(frame, logMel.length / BANDS, pixelsOf(logMel, recording.loudest));
}

function whole({ rate, channels }, settings) {
  const samples = mixed(channels);
  begin(rate, settings, Math.floor((samples.length * FRAMES_PER_SECOND) / rate));
  for (let at = 0; at < samples.length; at += AT_ONCE) hear(samples.slice(at, at + AT_ONCE));
  end();
}

function hear(samples) {
  const started = performance.now();
  show(recording.logMel.push(recording.resampler.push(samples)), started);
}

function end() {
  if (!recording) return;
  const started = performance.now();
  show(recording.logMel.push(recording.resampler.finish()), started);
  show(recording.logMel.finish(), performance.now());
  recording.utterances.finish().forEach(ended);
  recording.live?.finish();
  tell({ type: "end", frames: recording.frames });
  recording = null;
}

function show(frames, started) {
  recording.spent += performance.now() - started;
  if (!frames.length) return;
  for (const cell of frames) if (cell > recording.loudest) recording.loudest = cell;
  const count = frames.length / BANDS;
  recording.frames += count;
  spectrogram.add(count, pixelsOf(frames, recording.loudest));
  if (Math.floor(recording.frames / TOLD_EVERY) > Math.floor((recording.frames - count) / TOLD_EVERY)) {
    tell({ type: "progress", frames: recording.frames });
  }
  recording.utterances.push(frames).forEach(ended);
  const more = recording.live?.isOpen ? recording.utterances.live() : null;
  if (more) recording.live.push(more);
}

/** An utterance is over: the socket has most of it, or it goes whole. */
function ended(utterance) {
  const { live, settings, startedAt, spent } = recording;
  recording.spent = 0;
  if (live?.isOpen && live.end({ ...utterance, spent })) return;
  const payload = post(settings, startedAt, { ...utterance, spent });
  rebuilt(utterance.start, decode(payload, utterance.frames.length / BANDS));
}

/** Its envelope, for the cluster; returns the payload. */
function post(settings, startedAt, { start, frames: unclamped, timings, spent = timings["log-mel"] }) {
  const started = performance.now();
  const payload = encode(clampToFloor(unclamped), settings.step);
  const utterance = about(settings, startedAt, start, unclamped);
  const envelope = pack({ ...utterance, payload });
  const took = { "log-mel": spent, klt: performance.now() - started };
  const message = { type: "utterance", ...utterance, payload, envelope, timings: took, round: settings.round };
  self.postMessage(message, [envelope.buffer]);
  return payload;
}

function about({ deviceId, language, step }, startedAt, start, logMel) {
  const frames = logMel.length / BANDS;
  const capturedAt = new Date(startedAt + (1000 * start) / FRAMES_PER_SECOND);
  return { start, frames, seconds: frames / FRAMES_PER_SECOND, deviceId, language, step, capturedAt, utteranceId: uuid() };
}

/** The mean of the channels, or the loudest where they cancel each other. */
function mixed(channels) {
  const mean = channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
  const power = (samples) => samples.reduce((sum, sample) => sum + sample * sample, 0);
  const loudest = channels.reduce((most, channel) => (power(channel) > power(most) ? channel : most));
  return power(mean) < CANCELLED * power(loudest) ? loudest : mean;
}

/** Version 4; `crypto.randomUUID` is missing where the page came over plain HTTP from another machine. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
