// The playground: what is heard goes to the worker, what the worker makes of it to the cluster, the answers onto the page.

import { Cluster, Refused, stagesOf } from "./cluster.js";
import { EmotionChart } from "./emotions.js";
import { Listener } from "./listener.js";
import { Words, showSent, showTimings, showTotals } from "./panels.js";

const FRAMES_PER_SECOND = 100;
const LANGUAGES = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk", "zh"];

const find = (id) => document.getElementById(id);
const deviceId = `web-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, "0")}`;
const chart = new EmotionChart(find("emotions"), find("legend"));
const words = new Words();
const key = () => find("key").value.trim();
const cluster = new Cluster(key);
// `spoken` and `live`: seconds that went out whole, and while they were spoken; `posted` and `streamed`: without an answer
const NOTHING = { bytes: 0, frames: 0, spoken: 0, live: 0, posted: 0, streamed: 0, ended: true, refused: false };
const totals = { ...NOTHING };
let round = 0; // of recordings: what is late for an earlier one is not shown

const listener = new Listener(settings, [find("original"), find("rebuilt")], {
  progress: ({ frames, round: of }) => heard(frames, of),
  utterance: (utterance) => send(utterance, utterance.round),
  partial: (partial) => {
    if (partial.round === round) words.saying(partial.start / FRAMES_PER_SECOND, partial);
  },
  waiting: ({ count, spoken, round: of }) => {
    if (of !== round) return;
    totals.live = spoken;
    if (count > totals.streamed) recognising();
    totals.streamed = count;
    done();
  },
  answer: ({ utterance, answer, round: of }) => {
    if (of === round) show(utterance, answer, Object.entries(answer.timings_ms));
  },
  failed: ({ start, problem, round: of }) => {
    if (of === round) words.failed(start / FRAMES_PER_SECOND, problem.detail ?? problem.title);
  },
  end: ({ frames, round: of }) => {
    if (of === round) totals.ended = true;
    heard(frames, of);
    done();
  },
  trouble: ({ message, round: of = round }) => {
    if (of === round) say(message, true);
  },
  lost: () => stop(),
});

function settings() {
  return { step: find("step").value, language: find("language").value || null, deviceId, key: key(), round };
}

function heard(frames, of) {
  if (of !== round) return;
  totals.frames = frames;
  update();
}

function begin() {
  round += 1;
  Object.assign(totals, NOTHING, { ended: false });
  words.clear();
  chart.clear();
  update();
}

async function send(utterance, mine) {
  if (mine !== round) return;
  totals.posted += 1;
  totals.spoken += utterance.seconds;
  recognising();
  try {
    const { answer, serverTiming, milliseconds } = await cluster.recognise(utterance.envelope);
    if (mine !== round) return;
    totals.posted -= 1;
    const { length } = utterance.envelope;
    show({ ...utterance, bytes: length, sent: length, milliseconds }, answer, stagesOf(serverTiming));
    done();
  } catch (error) {
    if (mine !== round) return;
    totals.posted -= 1;
    words.failed(utterance.start / FRAMES_PER_SECOND, error.message);
    refused(error);
  }
}

function recognising() {
  if (!listener.listening && !totals.refused) say("The cluster recognises what was said…");
}

function show(utterance, answer, stages) {
  const start = utterance.start / FRAMES_PER_SECOND;
  totals.bytes += utterance.sent;
  words.answered({ ...utterance, start }, answer);
  chart.add(start, utterance.seconds, answer);
  showTimings(utterance.timings, stages, utterance.milliseconds);
  const pauses = totals.frames / FRAMES_PER_SECOND - totals.spoken - totals.live;
  showSent(utterance, Math.max(0, pauses), Boolean(key()));
  update();
}

function done() {
  if (!totals.ended || totals.posted || totals.streamed || totals.refused) return; // why stays to be read
  say(words.isEmpty ? "Nobody was heard to speak: nothing was sent." : "Done.");
}

function refused(error) {
  totals.refused = true;
  if (error instanceof Refused && [401, 403].includes(error.status)) {
    find("settings").open = true;
    find("key").focus();
    say("This cluster wants a key: type it under Settings, and try again.", true);
  } else {
    say(error instanceof Refused ? error.message : "The cluster cannot be reached.", true);
  }
}

function update() {
  const seconds = totals.frames / FRAMES_PER_SECOND;
  chart.lengthen(seconds);
  showTotals(totals.bytes, seconds);
}

function say(text, trouble = false) {
  const status = find("status");
  status.textContent = text;
  status.classList.toggle("trouble", trouble);
}

function showListening() {
  find("microphone").classList.toggle("listening", listener.listening);
  find("microphone").lastElementChild.textContent = listener.listening ? "Stop" : "Speak";
}

let opening = false;
let stopping = Promise.resolve();
async function listen() {
  if (opening) return;
  opening = true;
  await stopping; // its end would otherwise end the next recording
  begin();
  try {
    await listener.start();
    say("Listening: speak, and pause where a sentence ends.");
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser was told not to open the microphone." : error.message, true);
  }
  opening = false;
  showListening();
}

async function stop() {
  stopping = listener.stop();
  showListening();
  await stopping;
}

find("microphone").addEventListener("click", () => (listener.listening ? stop() : listen()));

async function open(file) {
  if (!file) return;
  await stop();
  begin();
  say(`Reading ${file.name}…`);
  await listener.open(file);
}

find("fields").addEventListener("submit", (event) => event.preventDefault());
find("file").addEventListener("change", ({ target }) => {
  open(target.files[0]);
  target.value = ""; // so that the same file can be opened again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files[0]);
});

const names = new Intl.DisplayNames(["en"], { type: "language" });
for (const code of LANGUAGES) find("language").add(new Option(names.of(code), code));
