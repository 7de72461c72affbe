// Emotion over time: a column an utterance, as wide as it is long. The colour that fills it from below is the emotion, as
// high as its probability; a line marks the confidence, dashed where the answer should not be acted upon.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100;
const LEAST_SECONDS = 5; // of the axis
const PER_CENT = new Intl.NumberFormat("en", { style: "percent" });

/** An emotion in words: "happy, 84 %", "unsure (happy?), 41 %", "nobody speaks". */
export function inWords(answer) {
  if (!answer.emotion) return "nobody speaks";
  const confidence = PER_CENT.format(answer.confidence);
  return answer.uncertain ? `unsure (${answer.emotion}?), ${confidence}` : `${answer.emotion}, ${confidence}`;
}

export class EmotionChart {
  #svg;
  #legend;
  #seconds = LEAST_SECONDS;
  #said = [];

  constructor(svg, legend) {
    this.#svg = svg;
    this.#legend = legend;
    this.clear();
  }

  clear() {
    this.#svg.replaceChildren();
    this.#legend.replaceChildren();
    this.#svg.setAttribute("aria-label", "No emotion yet");
    this.#said = [];
    this.lengthen(LEAST_SECONDS);
  }

  /** The axis reaches to this second. */
  lengthen(seconds) {
    this.#seconds = Math.max(LEAST_SECONDS, seconds);
    this.#svg.setAttribute("viewBox", `0 0 ${this.#seconds} ${HEIGHT}`);
  }

  /** The answer to an utterance that began at a second. */
  add(start, seconds, answer) {
    if (!answer.emotion) return;
    const group = element("g");
    const title = element("title");
    title.textContent = `${start.toFixed(1)} s: ${inWords(answer)}`;
    group.append(title);
    const others = Object.entries(answer.probabilities).filter(([name]) => name !== answer.emotion);
    others.sort(([, one], [, other]) => other - one);
    let top = HEIGHT;
    for (const [name, probability] of [[answer.emotion, answer.probabilities[answer.emotion]], ...others]) {
      const height = probability * HEIGHT;
      top -= height;
      const how = name !== answer.emotion ? "other" : answer.uncertain ? "unsure" : "";
      group.append(element("rect", { x: start, y: top, width: seconds, height, class: `${name} ${how}` }));
    }
    const y = HEIGHT * (1 - answer.confidence);
    const line = { x1: start, x2: start + seconds, y1: y, y2: y, class: answer.uncertain ? "unsure" : "" };
    group.append(element("line", line));
    this.#svg.append(group);
    this.#said.push(title.textContent);
    this.#svg.setAttribute("aria-label", `Emotion and confidence: ${this.#said.slice(-8).join("; ")}`);
    if (!this.#legend.childElementCount) this.#explain(Object.keys(answer.probabilities));
  }

  #explain(classes) {
    for (const name of classes) {
      const item = document.createElement("li");
      item.className = `chip ${name}`;
      item.textContent = name;
      this.#legend.append(item);
    }
    const item = document.createElement("li");
    item.textContent = "line: confidence, dashed where unsure";
    this.#legend.append(item);
  }
}

function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
