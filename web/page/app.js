// The playground: what is heard goes to the worker, what the worker makes of it to the cluster, the answers onto the page.

import { Cluster, Refused } from "./cluster.js";
import { EmotionChart } from "./emotions.js";
import { Listener } from "./listener.js";
import { Words, showSent, showTimings, showTotals } from "./panels.js";

const FRAMES_PER_SECOND = 100;
const LANGUAGES = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk", "zh"];

const find = (id) => document.getElementById(id);
const deviceId = `web-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, "0")}`;
const chart = new EmotionChart(find("emotions"), find("legend"));
const words = new Words();
const cluster = new Cluster(() => find("key").value.trim());
const totals = { bytes: 0, frames: 0, spoken: 0, waiting: 0, ended: true, refused: false };
let round = 0; // of recordings: what is late for an earlier one is not shown

const listener = new Listener(settings, [find("original"), find("rebuilt")], {
  progress: ({ frames, round: of }) => heard(frames, of),
  utterance: (utterance) => send(utterance, utterance.round),
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
  return { step: find("step").value, language: find("language").value || null, deviceId, round };
}

function heard(frames, of) {
  if (of !== round) return;
  totals.frames = frames;
  update();
}

function begin() {
  round += 1;
  Object.assign(totals, { bytes: 0, frames: 0, spoken: 0, waiting: 0, ended: false, refused: false });
  words.clear();
  chart.clear();
  update();
}

async function send(utterance, mine) {
  if (mine !== round) return;
  const start = utterance.start / FRAMES_PER_SECOND;
  totals.waiting += 1;
  totals.spoken += utterance.seconds;
  if (!listener.listening && !totals.refused) say("The cluster recognises what was said…");
  try {
    const { answer, serverTiming, milliseconds } = await cluster.recognise(utterance.envelope);
    if (mine !== round) return;
    totals.bytes += utterance.envelope.length;
    words.answered({ ...utterance, start }, answer);
    chart.add(start, utterance.seconds, answer);
    showTimings(utterance.timings, serverTiming, milliseconds);
    showSent(utterance, Math.max(0, totals.frames / FRAMES_PER_SECOND - totals.spoken), Boolean(find("key").value.trim()));
    totals.waiting -= 1;
    done();
  } catch (error) {
    if (mine !== round) return;
    totals.waiting -= 1;
    words.add(start, "not recognised", { quiet: true, details: [error.message] });
    refused(error);
  }
  update();
}

function done() {
  if (!totals.ended || totals.waiting || totals.refused) return; // why stays to be read
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
