// The range coder of `constriction` (stream.queue: 32-bit words, 64-bit state, probabilities in units of 2^-24), bit by bit.
// JavaScript has no 64-bit integers that are fast: a state is two numbers below 2^32, and every product is split so that
// a double holds it exactly.

const WORD = 2 ** 32;
const UNITS = 2 ** 24;
const SPLIT = 2 ** 20;

/** Bytes that no symbols lead to. */
export class InvalidBytes extends Error {}

let high = 0; // of the last product
let low = 0;

/** scale (below 2^40) times units (up to 2^24), into `high` and `low`. */
function multiply(scale, units) {
  const upper = Math.floor(scale / SPLIT) * units; // below 2^44
  const rest = (upper % 4096) * SPLIT + (scale % SPLIT) * units;
  low = rest % WORD;
  high = Math.floor(upper / 4096) + Math.floor(rest / WORD);
}

/** Symbols in, bytes out: whole words, big-endian. */
export class RangeEncoder {
  #words = [];
  #lowerHigh = 0;
  #lowerLow = 0;
  #rangeHigh = WORD - 1;
  #rangeLow = WORD - 1;
  #held = 0; // words that wait for a carry
  #firstHeld = 0;
  #isNew = true;

  /** One symbol, which has the units from `left` on. */
  encode(left, units) {
    this.#isNew = false;
    const scale = this.#rangeHigh * 256 + Math.floor(this.#rangeLow / UNITS);
    multiply(scale, left);
    const lowSum = this.#lowerLow + low;
    const newLow = lowSum % WORD;
    const newHigh = (this.#lowerHigh + high + (lowSum >= WORD ? 1 : 0)) % WORD;
    multiply(scale, units);
    this.#rangeHigh = high;
    this.#rangeLow = low;
    if (this.#held > 0 && !wraps(newHigh, newLow, high, low)) {
      const carried = newHigh < this.#lowerHigh || (newHigh === this.#lowerHigh && newLow < this.#lowerLow);
      this.#release(carried);
    }
    this.#lowerHigh = newHigh;
    this.#lowerLow = newLow;
    if (this.#rangeHigh > 0) return;
    const word = this.#lowerHigh;
    this.#lowerHigh = this.#lowerLow;
    this.#lowerLow = 0;
    this.#rangeHigh = this.#rangeLow;
    this.#rangeLow = 0;
    if (this.#held > 0) {
      this.#held += 1;
    } else if (wraps(this.#lowerHigh, 0, this.#rangeHigh, 0)) {
      this.#held = 1;
      this.#firstHeld = word;
    } else {
      this.#words.push(word);
    }
  }

  /** Everything that was written. */
  finish() {
    if (!this.#isNew) {
      const pointLow = this.#lowerLow + WORD - 1;
      const pointHigh = this.#lowerHigh + (pointLow >= WORD ? 1 : 0);
      if (this.#held > 0) this.#release(pointHigh >= WORD);
      const point = pointHigh % WORD;
      this.#words.push(point);
      const upperLow = this.#lowerLow + this.#rangeLow;
      const upper = (this.#lowerHigh + this.#rangeHigh + (upperLow >= WORD ? 1 : 0)) % WORD;
      if (upper === point) this.#words.push(0);
    }
    const bytes = new Uint8Array(4 * this.#words.length);
    const view = new DataView(bytes.buffer);
    this.#words.forEach((word, index) => view.setUint32(4 * index, word));
    return bytes;
  }

  #release(carried) {
    this.#words.push(carried ? (this.#firstHeld + 1) % WORD : this.#firstHeld);
    for (let index = 1; index < this.#held; index++) this.#words.push(carried ? 0 : WORD - 1);
    this.#held = 0;
  }
}

/** Whether lower + range is 2^64 or more. */
function wraps(lowerHigh, lowerLow, rangeHigh, rangeLow) {
  return lowerHigh + rangeHigh + (lowerLow + rangeLow >= WORD ? 1 : 0) >= WORD;
}

/** Bytes in, symbols out. Zeros follow the last byte. */
export class RangeDecoder {
  #bytes;
  #at = 0;
  #lowerHigh = 0;
  #lowerLow = 0;
  #rangeHigh = WORD - 1;
  #rangeLow = WORD - 1;
  #pointHigh;
  #pointLow;

  constructor(bytes) {
    this.#bytes = bytes;
    this.#pointHigh = this.#word();
    this.#pointLow = this.#word();
  }

  /** A symbol by its cumulative units, one more than there are symbols. Throws InvalidBytes. */
  decode(cumulatives) {
    const [scale, quantile] = this.#quantile();
    let symbol = 0;
    let beyond = cumulatives.length - 1;
    while (beyond - symbol > 1) {
      const middle = (symbol + beyond) >> 1;
      if (cumulatives[middle] <= quantile) symbol = middle;
      else beyond = middle;
    }
    this.#consume(scale, cumulatives[symbol], cumulatives[symbol + 1] - cumulatives[symbol]);
    return symbol;
  }

  /** One of 2^digits that are alike likely. Throws InvalidBytes. */
  decodeUniform(digits) {
    const units = UNITS / 2 ** digits;
    const [scale, quantile] = this.#quantile();
    const symbol = Math.floor(quantile / units);
    this.#consume(scale, symbol * units, units);
    return symbol;
  }

  #quantile() {
    const scale = this.#rangeHigh * 256 + Math.floor(this.#rangeLow / UNITS);
    const lowDifference = this.#pointLow - this.#lowerLow;
    const restLow = lowDifference < 0 ? lowDifference + WORD : lowDifference;
    const restHigh = (this.#pointHigh - this.#lowerHigh - (lowDifference < 0 ? 1 : 0) + 2 * WORD) % WORD;
    let quantile = Math.floor((restHigh * WORD + restLow) / scale); // off by one at most, where the double was rounded
    multiply(scale, quantile);
    if (high > restHigh || (high === restHigh && low > restLow)) {
      quantile -= 1;
    } else {
      multiply(scale, quantile + 1);
      if (high < restHigh || (high === restHigh && low <= restLow)) quantile += 1;
    }
    if (quantile >= UNITS) throw new InvalidBytes("the range coder's bytes mean nothing");
    return [scale, quantile];
  }

  #consume(scale, left, units) {
    multiply(scale, left);
    const lowSum = this.#lowerLow + low;
    this.#lowerLow = lowSum % WORD;
    this.#lowerHigh = (this.#lowerHigh + high + (lowSum >= WORD ? 1 : 0)) % WORD;
    multiply(scale, units);
    this.#rangeHigh = high;
    this.#rangeLow = low;
    if (high > 0) return;
    this.#lowerHigh = this.#lowerLow;
    this.#lowerLow = 0;
    this.#rangeHigh = this.#rangeLow;
    this.#rangeLow = 0;
    this.#pointHigh = this.#pointLow;
    this.#pointLow = this.#word();
  }

  #word() {
    let word = 0;
    for (let index = 0; index < 4; index++) word = word * 256 + (this.#bytes[this.#at++] ?? 0);
    return word;
  }
}
