// The panels around an answer: bytes, words, stages, and what was sent.

import { HEADER_BYTES } from "../codec/envelope.js";
import { inWords } from "./emotions.js";

const WAV_HEADER = 44; // bytes
const WAV_PER_SECOND = 32000; // bytes: 16 kHz, 16 bits
const HEX_BYTES = 96; // shown
const HEX_PER_LINE = 16;
const NUMBER = new Intl.NumberFormat("en");
const TITLES = {
  asr: "words", text_embedding: "text vectors", text_encoder: "text encoder", fusion: "emotion", mel: "rebuild log-Mel",
  queue: "admission", waiting: "between stages",
};
const BEFORE_A_STAGE = "-queue"; // how Server-Timing ends the name of a wait

const find = (id) => document.getElementById(id);

/** Bytes as people read them. */
export function inBytes(bytes) {
  return bytes < 100_000 ? `${NUMBER.format(bytes)} B` : `${NUMBER.format(Math.round(bytes / 1000))} kB`;
}

/** What these seconds of speech take as a WAV file. */
export function wavBytes(seconds) {
  return seconds ? WAV_HEADER + Math.round(seconds * WAV_PER_SECOND) : 0;
}

/** Totals: bytes that were sent, seconds that were listened to. */
export function showTotals(sent, seconds) {
  const wav = wavBytes(seconds);
  const share = wav ? sent / wav : 0;
  find("bytes-sent").textContent = inBytes(sent);
  find("bytes-wav").textContent = inBytes(wav);
  find("bytes-share").textContent = sent ? `${(100 * share).toFixed(2)} %` : "–";
  find("seconds").textContent = `${seconds.toFixed(1)} s`;
  find("bytes-bar").style.width = `${100 * share}%`;
}

/** An utterance in the list of words, which is in order of time. */
export class Words {
  #list = find("words");
  #saying = null; // the row of what is said now

  get isEmpty() {
    return !this.#list.childElementCount;
  }

  clear() {
    this.#saying = null;
    this.#list.replaceChildren();
    find("no-words").hidden = false;
  }

  /** `text` at a second, with what the chip says; `name` is the class of its colour. */
  add(start, text, { chip = "", name = "", unsure = false, quiet = false, details = [] } = {}) {
    find("no-words").hidden = true;
    this.#saying?.remove();
    this.#saying = null;
    const item = document.createElement("li");
    const time = item.appendChild(document.createElement("time"));
    time.textContent = clock(start);
    const words = item.appendChild(document.createElement("span"));
    words.textContent = text;
    words.className = quiet ? "quiet" : "";
    const what = item.appendChild(document.createElement("span"));
    what.className = "what";
    if (chip) {
      const emotion = what.appendChild(document.createElement("span"));
      emotion.className = `chip ${name} ${unsure ? "unsure" : ""}`;
      emotion.textContent = chip;
    }
    for (const detail of details) what.appendChild(document.createElement("span")).textContent = detail;
    this.#list.append(item);
    this.#list.parentElement.scrollTop = this.#list.scrollHeight;
  }

  /** What is said at a second, so far; the part behind `stable` may still change, so that nobody is read to from it. */
  saying(start, { stable, text, emotion, confidence, uncertain }) {
    if (!this.#saying) {
      this.add(start, "", { chip: "…" });
      this.#saying = this.#list.lastElementChild;
      this.#saying.setAttribute("aria-hidden", "true");
      this.#saying.className = "saying";
    }
    const [, words, what] = this.#saying.children;
    const may = document.createElement("span");
    may.className = "quiet";
    may.textContent = text.slice(stable.length);
    words.replaceChildren(stable, may);
    what.firstElementChild.textContent = emotion ? `${inWords({ emotion, confidence, uncertain })}…` : "…";
    this.#list.parentElement.scrollTop = this.#list.scrollHeight;
  }

  /** Why an utterance has no answer. */
  failed(start, why) {
    this.add(start, "not recognised", { quiet: true, details: [why] });
  }

  /** The answer to an utterance. */
  answered({ start, seconds, bytes }, answer) {
    const silent = answer.speech === "none";
    const doubtful = answer.speech === "doubtful" ? ["words in doubt"] : [];
    const left = answer.degraded.map((stage) => `without ${TITLES[stage] ?? stage}`);
    this.add(start, silent ? "nobody speaks" : answer.transcript.text || "no words", {
      chip: answer.emotion ? inWords(answer) : "",
      name: answer.emotion ?? "",
      unsure: answer.uncertain,
      quiet: silent || !answer.transcript.text,
      details: [`${inBytes(bytes)} for ${seconds.toFixed(1)} s`, ...doubtful, ...left],
    });
  }
}

/** The stages of an utterance, [name, milliseconds] each: on this device, on the way, on the cluster. */
export function showTimings(here, timed, milliseconds) {
  const total = timed.find(([stage]) => stage === "total")?.[1] ?? 0;
  const waits = timed.filter(([stage]) => stage.endsWith(BEFORE_A_STAGE));
  const waiting = waits.reduce((sum, [, duration]) => sum + duration, 0);
  const stages = [...timed.filter((each) => !waits.includes(each)), ...(waits.length ? [["waiting", waiting]] : [])];
  const rows = [
    ...Object.entries(here).map(([stage, duration]) => ["here", `${stage} (here)`, duration]),
    ["between", "on the way", Math.max(0, milliseconds - total)],
    ...stages.filter(([stage]) => stage !== "total").map(([stage, duration]) => ["there", TITLES[stage] ?? stage, duration]),
  ];
  const longest = Math.max(...rows.map(([, , duration]) => duration), 1);
  find("no-timings").hidden = true;
  find("timings").replaceChildren(
    ...rows.map(([where, title, duration]) => {
      const item = document.createElement("li");
      item.className = where;
      item.appendChild(document.createElement("span")).textContent = title;
      const bar = item.appendChild(document.createElement("span"));
      bar.className = "bar";
      bar.setAttribute("aria-hidden", "true");
      bar.appendChild(document.createElement("span")).style.width = `${(100 * duration) / longest}%`;
      item.appendChild(document.createElement("b")).textContent = `${duration.toFixed(duration < 10 ? 1 : 0)} ms`;
      return item;
    }),
  );
}

/** What went out for the latest utterance, and what stayed. `pauses` are seconds of which nothing was sent. */
export function showSent(utterance, pauses, hasKey) {
  const { envelope, payload, frames, seconds, step, deviceId, utteranceId, capturedAt, language } = utterance;
  const spectrogram = `${inBytes(payload.length)} (klt ${step}, ${frames} frames)`;
  const languageRow = ["Language", language ?? "not said"];
  if (envelope) {
    const around = envelope.length - payload.length;
    list("sent", [
      ["Envelope", `${inBytes(envelope.length)}, once`],
      ["Spectrogram, compressed", spectrogram],
      ["Header and checksum", `${inBytes(around)} (${HEADER_BYTES} + ${around - HEADER_BYTES - 4} + 4)`],
      ["Device", `${deviceId}, new on every visit`],
      ["Utterance", utteranceId],
      ["Begin", capturedAt.toISOString()],
      languageRow,
      ["Key", hasKey ? "yours, as a header" : "none"],
    ]);
  } else {
    list("sent", [
      ["Spectrogram, compressed", `${spectrogram}, over a socket while you spoke`],
      ["Device", "not said"],
      languageRow,
      ["Key", hasKey ? "yours, once a connection" : "none"],
    ]);
  }
  list("kept", [
    ["The sound itself", `${inBytes(wavBytes(seconds))} as WAV: not sent`],
    ["Phase, and the detail between 80 bands", "not sent"],
    ["Pauses", `${pauses.toFixed(1)} s: not sent`],
    ["File name", "not sent"],
    ["Cookies and storage", "none"],
  ]);
  const hex = find("hex");
  hex.hidden = false;
  hex.textContent = hexOf(envelope ?? payload);
}

function list(id, rows) {
  find(id).replaceChildren(
    ...rows.map(([term, description]) => {
      const row = document.createElement("div");
      row.appendChild(document.createElement("dt")).textContent = term;
      row.appendChild(document.createElement("dd")).textContent = description;
      return row;
    }),
  );
}

function hexOf(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(HEX_BYTES, bytes.length); at += HEX_PER_LINE) {
    const line = Array.from(bytes.subarray(at, at + HEX_PER_LINE), (byte) => byte.toString(16).padStart(2, "0"));
    lines.push(`${at.toString(16).padStart(4, "0")}  ${line.join(" ")}`);
  }
  return `${lines.join("\n")}${bytes.length > HEX_BYTES ? "\n…" : ""}`;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}
