// What a prompt says, as genlib.text.reader finds it: values that it names, values that it rules
// out, words that are unknown. `lexicon` is what book/_ext/draw.py writes of genlib's text files.

import { CHARACTERS, CHINESE, LETTER } from "./student.js";

const SURE = 0.99; // probability from which a reading of the student counts
const NEAR = 5; // tokens between "sun" and "left", at most
const GUESSES = 32; // pieces of a prompt that the student reads
const LONGEST = 10; // tokens of a phrase
const NO = ["not", "un", "without"];
const TOKENS = new RegExp(`[${CHINESE}]|(?:(?![${CHINESE}])${LETTER})+|[,.;:!?、。…()|/\\n]`, "gu");
const PAUSE = /^[,.;:!?、。…()|/\n]/u;
const HAS_CHINESE = new RegExp(`[${CHINESE}]`, "u");
// JavaScript's \b, \s and trim know other characters than Python's.
const WORD = "[\\p{L}\\p{N}_]";
const EDGE = `(?:(?<!${WORD})(?=${WORD})|(?<=${WORD})(?!${WORD}))`;
const NOT = new RegExp(`n[’']t${EDGE}`, "gu");
const LESS = new RegExp(`${EDGE}([a-z]+)(?:-free|less)${EDGE}`, "gu");
const SPACE =
  "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const SPACES_BEFORE = new RegExp(`^${SPACE}+`, "u");
const SPACES_AFTER = new RegExp(`${SPACE}+$`, "u");

const count = (text) => [...text].length; // of characters, as Python counts them
const isChinese = (text) => HAS_CHINESE.test(text);
export const strip = (text) => text.replace(SPACES_BEFORE, "").replace(SPACES_AFTER, "");

/** The first 2,000 characters of a prompt, less a word that would be split. */
export function shorten(prompt) {
  const characters = [...prompt];
  if (characters.length <= CHARACTERS) return prompt;
  let kept = characters.slice(0, CHARACTERS).join("");
  const split = new RegExp(`^${LETTER}`, "u").test(characters[CHARACTERS]);
  if (split && !isChinese(characters[CHARACTERS - 1])) {
    kept = kept.replace(new RegExp(`${LETTER}+(?=\\n?$)`, "u"), "") || kept;
  }
  return kept.replace(SPACES_AFTER, "");
}

function key(text) {
  // its tokens, without articles and without the s of a plural
  return (text.match(TOKENS) ?? [])
    .filter((token) => !["a", "an", "the"].includes(token))
    .map((token) => (count(token) > 3 && /[^sui]s$/u.test(token) ? token.slice(0, -1) : token));
}

function* slips(word) {
  // what is a slip away, the likeliest slips first
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  const cut = Array.from({ length: word.length + 1 }, (_, i) => [word.slice(0, i), word.slice(i)]);
  yield cut.filter(([, b]) => b.length > 1).map(([a, b]) => a + b[1] + b[0] + b.slice(2));
  yield [
    ...cut.filter(([, b]) => b).map(([a, b]) => a + b.slice(1)),
    ...cut.flatMap(([a, b]) => letters.map((c) => a + c + b)),
  ];
  const vowels = [..."aeiouy"]; // in a short word, only a vowel for a vowel
  const long = word.length > 5;
  yield cut
    .slice(0, -1)
    .filter(([, b]) => long || vowels.includes(b[0]))
    .flatMap(([a, b]) => (long ? letters : vowels).map((c) => a + c + b.slice(1)));
}

export class Reader {
  constructor(lexicon, student) {
    this.attributes = lexicon.attributes; // [name, values] pairs
    this.names = lexicon.attributes.map(([name]) => name);
    this.of = new Map(lexicon.attributes.flatMap(([name, values]) => values.map((v) => [v, name])));
    this.letters = new Map(Object.entries(lexicon.letters));
    this.student = student;
    this.table = new Map();
    for (const [marks, keys] of lexicon.phrases) for (const k of keys) this.table.set(k, marks);
    this.vocabulary = new Map();
    for (const k of this.table.keys()) {
      for (const word of k.split(" ")) this.vocabulary.set(word, this.table.get(word) ?? []);
    }
  }

  /** Reads a prompt: `{named, excluded, unknown, cut}`. */
  understand(prompt) {
    const whole = strip(prompt);
    const kept = shorten(whole);
    const { named, excluded, unknown } = this.lookUp(this.pieces(this.clean(kept)));
    const open = unknown.filter(([, isOpen]) => isOpen).slice(0, GUESSES);
    const guesses = new Map(open.map((item) => [item, this.guess(item[0])]));
    const lost = [];
    let told = named;
    for (const item of unknown) {
      const found = Object.entries(guesses.get(item) ?? {}).filter(
        ([name, value]) => !(excluded[name] ?? []).includes(value),
      );
      told = { ...Object.fromEntries(found), ...told };
      if (!found.length) lost.push(...item[0].split(" "));
    }
    return { named: told, excluded, unknown: [...new Set(lost)], cut: count(kept) < count(whole) };
  }

  /** A text in small letters, with words for emoji, and with simplified characters. */
  clean(text) {
    const plain = [...text.normalize("NFKC").toLowerCase()];
    return plain
      .map((c) => this.letters.get(c) ?? c)
      .join("")
      .replace(NOT, " not")
      .replaceAll("cannot", "can not")
      .replace(LESS, (whole, stem) => {
        const says = (this.table.get(key(stem).join(" ")) ?? []).some((mark) => this.of.has(mark));
        return this.table.has(key(whole).join(" ")) || !says ? whole : `without ${stem}, `;
      });
  }

  /** The longest phrases that the lexicon knows, and single unknown tokens. */
  pieces(text) {
    const said = key(text).map((word) => this.spell(word));
    const found = [];
    for (let start = 0; start < said.length;) {
      let end = Math.min(start + LONGEST, said.length);
      while (end > start && !this.table.has(said.slice(start, end).join(" "))) end--;
      const marks = end > start ? this.table.get(said.slice(start, end).join(" ")) : null;
      if (!marks) end = start + 1;
      const tokens = said.slice(start, end);
      found.push({ text: tokens.join(isChinese(tokens.join("")) ? "" : " "), start, end, marks });
      start = end;
    }
    return found;
  }

  /** An unknown word of four letters or more, as the one word that is a slip away. */
  spell(word) {
    if (word.length < 4 || this.vocabulary.has(word) || !/^[a-z]+$/.test(word)) return word;
    for (const reached of slips(word)) {
      const near = [...new Set(reached)]
        .filter((w) => this.vocabulary.has(w) && w[0] === word[0])
        .sort();
      if (near.length) {
        const says = (w) =>
          this.vocabulary
            .get(w)
            .filter((mark) => this.of.has(mark))
            .sort()
            .join();
        const alike = near.every((w) => says(w) === says(near[0]));
        return alike && !this.vocabulary.get(near[0]).some((m) => NO.includes(m)) ? near[0] : word;
      }
    }
    return word;
  }

  /** Reads pieces from left to right; see `reader.look_up`. */
  lookUp(said) {
    const named = new Map(); // attribute to value and the end of its piece
    const excluded = new Map();
    const [bodies, sides, unknown] = [[], [], []]; // bodies: clause and place of sun and moon
    let [clause, scope, fresh, before, moon] = [0, "", true, "", false];
    for (const piece of said) {
      const marks = piece.marks ?? [];
      const has = (mark) => marks.includes(mark);
      const values = [...this.of.keys()].filter(has);
      const body = has("sun") || has("moon");
      const pause = PAUSE.test(piece.text);
      const negation = NO.find(has);
      moon ||= has("moon");
      if (!marks.length && !pause) unknown.push([piece, piece.marks === null && !scope]);
      if (has("end") && !fresh && !(scope === "without" && piece.text === "and")) scope = "";
      if (pause || has("but")) {
        clause++;
        scope = "";
      } else if (negation) {
        scope = negation;
        fresh = true;
      } else if (scope) {
        const times = values.filter((value) => value !== "night" || !body);
        if (body && !times.length) named.set("light", ["hidden", piece.end]);
        for (const value of times) {
          const name = this.of.get(value);
          excluded.set(name, (excluded.get(name) ?? new Set()).add(value));
        }
        fresh &&= has("stop");
        if (scope === "un") scope = "";
      } else {
        for (const value of values) {
          if (body && value === "night") continue; // the moon may be seen by day, too
          const name = this.of.get(value);
          const [old, end] = named.get(name) ?? ["day", 0];
          if (old === "day" || before === "的" || end === piece.start)
            named.set(name, [value, piece.end]);
        }
        if (body) bodies.push([clause, piece.start]);
        for (const mark of marks) {
          if (mark.startsWith("beside")) sides.push([clause, piece.start, mark.split(" ")[1]]);
        }
      }
      before = piece.text;
    }
    const told = Object.fromEntries([...named].map(([name, [value]]) => [name, value]));
    const without = {};
    for (const [name, found] of excluded) {
      found.delete(told[name]);
      if (found.size) without[name] = [...found];
    }
    if (moon) told.time ??= "night";
    const near = sides
      .flatMap(([c, at, side]) =>
        bodies.filter(([k]) => k === c).map(([, p]) => [Math.abs(at - p), side]),
      )
      .sort(([a, s], [b, t]) => a - b || (s < t ? -1 : 1));
    if (near.length && near[0][0] <= NEAR) told.light ??= near[0][1];
    return { named: told, excluded: without, unknown: runs(unknown) };
  }

  /** The values of which the student is sure, by attribute. */
  guess(text) {
    const { logits } = this.student.outputs(text);
    const found = {};
    let at = 0;
    for (const [name, values] of this.attributes) {
      const part = logits.slice(at, (at += 1 + values.length));
      const most = Math.max(...part);
      const share = 1 / part.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
      const best = part.indexOf(most);
      if (best && share >= SURE) found[name] = values[best - 1];
    }
    return found;
  }
}

// Joins Chinese characters that are neighbours: two or three of them may be one word.
function runs(unknown) {
  const found = [];
  let [end, joinable] = [-1, false];
  for (const [piece, isOpen] of unknown) {
    const chinese = isChinese(piece.text);
    const last = found.at(-1);
    if (last && piece.start === end && last[1] === isOpen && chinese && joinable)
      last[0] += piece.text;
    else found.push([piece.text, isOpen]);
    [end, joinable] = [piece.end, chinese];
  }
  return found.map(([text, isOpen]) => {
    const [least, most] = isChinese(text) ? [2, 3] : [4, 19];
    return [text, isOpen && count(text) >= least && count(text) <= most];
  });
}
