// Samples → spectrogram, utterances, envelopes: all of the computing, off the page's own thread.
//
// In:  {type: "canvases", heard, rebuilt}  to draw on
//      {type: "begin", rate, settings}     a recording of any sample rate; settings: {step, language, deviceId, round}
//      {type: "port", port}                where the microphone's samples will come from
//      {type: "samples", samples}, {type: "end"}
//      {type: "file", buffer, settings}    a whole file; {type: "decoded", rate, channels, settings} where it is no WAV
// Out: {type: "progress", frames}          heard so far
//      {type: "utterance", …}              see `send`
//      {type: "end", frames}, {type: "undecoded", buffer}, {type: "trouble", message}
// Each has the `round` of the settings that came with its recording.

import {
  BANDS, HOP_LENGTH, Resampler, SAMPLE_RATE, StreamingLogMel, clampToFloor, decode, encode, pack,
} from "../amser-codec.js";
import { pixelsOf } from "./colours.js";
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
  recording = {
    settings,
    resampler: new Resampler(rate),
    logMel: new StreamingLogMel(),
    utterances: new Utterances(),
    frames: 0,
    loudest: FAINTEST_PEAK,
    spent: 0, // ms for the log-Mel since the last utterance
    startedAt: Date.now(),
  };
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
  recording.utterances.finish().forEach(send);
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
  recording.utterances.push(frames).forEach(send);
}

/** An utterance: its envelope for the cluster; beside the spectrogram, what the cluster will see of it. */
function send({ start, frames: unclamped }) {
  const { settings, startedAt, spent, loudest } = recording;
  const frames = unclamped.length / BANDS;
  const seconds = frames / FRAMES_PER_SECOND;
  const clock = [performance.now()];
  const payload = encode(clampToFloor(unclamped), settings.step);
  const utteranceId = uuid();
  const capturedAt = new Date(startedAt + (1000 * start) / FRAMES_PER_SECOND);
  const { deviceId, language } = settings;
  const envelope = pack({ payload, frames, seconds, deviceId, language, utteranceId, capturedAt });
  clock.push(performance.now());
  spectrogram.sent(start, frames, pixelsOf(decode(payload, frames), loudest));
  tell(
    {
      type: "utterance", start, frames, seconds, utteranceId, capturedAt, deviceId, language, step: settings.step,
      payloadBytes: payload.length, envelope, timings: { "log-mel": spent, klt: clock[1] - clock[0] },
    },
    [envelope.buffer],
  );
  recording.spent = 0;
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
