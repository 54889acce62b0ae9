// The student: texts to features, and features to an embedding and to readings, as
// genlib.text.student does it.

import { arrays, toFloats } from "./weights.js";

const MOST = 256; // features of a text
export const CHARACTERS = 2000; // of a text that are looked at
export const CHINESE = "\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff";
export const LETTER = "[\\p{L}\\p{N}]"; // what Python's \w is, without the _
const PARTS = new RegExp(`[${CHINESE}]+|(?:(?![${CHINESE}])${LETTER})+`, "gu");
const IS_CHINESE = new RegExp(`^[${CHINESE}]`, "u");

/** The words of a text, in small letters; a run of Chinese characters is one word. */
export function words(text) {
  const read = [...text].slice(0, CHARACTERS).join("");
  return read.normalize("NFKC").toLowerCase().match(PARTS) ?? [];
}

function pieces(word) {
  // three and four neighbouring letters, `_` being the ends
  if (word.length <= 3) return [];
  const inside = ["_", ...word.slice(0, 24), "_"];
  return [3, 4].flatMap((n) => inside.slice(n - 1).map((_, i) => inside.slice(i, i + n).join("")));
}

const neighbours = (list, n, join) =>
  list.slice(n - 1).map((_, i) => list.slice(i, i + n).join(join));

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let i = 0; i < 8; i++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(text) {
  let crc = -1;
  for (const byte of new TextEncoder().encode(text)) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The numbers, from 1 to `size - 1`, of at most 256 features of a text. */
export function features(text, size = 8192) {
  const [single, pairs, parts, latin] = [[], [], [], []];
  for (const word of words(text)) {
    const letters = [...word];
    if (IS_CHINESE.test(word)) {
      single.push(...letters);
      pairs.push(...neighbours(letters, 2, ""));
      parts.push(...neighbours(letters, 3, ""));
    } else {
      latin.push(word);
      single.push(`_${word}_`);
      parts.push(...pieces(letters));
    }
  }
  pairs.push(...neighbours(latin, 2, " "));
  const found = [...single, ...pairs, ...parts].slice(0, MOST);
  return found.map((feature) => 1 + (crc32(feature) % (size - 1)));
}

function dense(x, kernel, bias, outputs) {
  const y = bias ? Float64Array.from(bias) : new Float64Array(outputs);
  for (let i = 0; i < x.length; i++) {
    for (let j = 0; j < outputs; j++) y[j] += x[i] * kernel[i * outputs + j];
  }
  return y;
}

function normalized(x, scale) {
  const by = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + 1e-6);
  return x.map((v, i) => v * by * scale[i]);
}

/** The trained student, from the bytes of its weights and the settings on its card. */
export class Student {
  constructor({ buffer, config }) {
    this.config = config;
    this.parts = arrays(buffer).map(({ data }) => toFloats(data));
  }

  /** The embedding of a text, Float32Array (128), and the logits of all its readings. */
  outputs(text) {
    const { width, hidden, features: size } = this.config;
    const [table, ...layers] = this.parts;
    const ids = features(text, size);
    let x = new Float64Array(width);
    for (const id of ids) for (let i = 0; i < width; i++) x[i] += table[id * width + i];
    x = x.map((v) => v / Math.sqrt(Math.max(ids.length, 1)));
    for (let at = 0; at < 10; at += 5) {
      const [scale, enter, enterBias, leave, leaveBias] = layers.slice(at, at + 5);
      const h = dense(normalized(x, scale), enter, enterBias, hidden).map(
        (v) => v / (1 + Math.exp(-v)),
      );
      const more = dense(h, leave, leaveBias, width);
      x = x.map((v, i) => v + more[i]);
    }
    const [out, readings, readingsBias] = layers.slice(10);
    const embedding = new Float32Array(width); // zeros for a text without features
    if (ids.length) embedding.set(dense(x, out, null, width));
    return { embedding, logits: dense(x, readings, readingsBias, readingsBias.length) };
  }
}
