// What a prompt says, as genlib.text.reader finds it: values that it names, values that it rules
// out, words that are unknown. `lexicon` is what book/_ext/draw.py writes of genlib's text files.

import { CHARACTERS, CHINESE, LETTER } from "./student.js";

const SURE = 0.998; // probability from which a reading of the student counts
const NEAR = 6; // pieces from "sun" to "left", at most
const GUESSES = 32; // pieces of a prompt that the student reads
const LONGEST = 10; // tokens of a phrase
const REACH = 24; // pieces in which a list ends, and from "boats" to "are not allowed", at most
const NO = ["not", "un", "without"];
const TOKENS = new RegExp(`[${CHINESE}]|(?:(?![${CHINESE}])${LETTER})+|[,.;:!?、。…()|/\\n]`, "gu");
const PAUSE = /^[,.;:!?、。…()|/\n]/u;
const HAS_CHINESE = new RegExp(`[${CHINESE}]`, "u");
// JavaScript's \b, \s and trim know other characters than Python's.
const WORD = "[\\p{L}\\p{N}_]";
const EDGE = `(?:(?<!${WORD})(?=${WORD})|(?<=${WORD})(?!${WORD}))`;
const ARTICLES = ["a", "an", "the"];
const OR = ["or", "nor", "或", "或者", "还是"]; // before the last of a list
const LAST = ["and", "和", "与", "及", "以及"];
// "No boats and draw a house" has a house.
const WISHES =
  "draw paint show make create add put keep include give use let want i we it there please 画".split(
    " ",
  );
const ALL = ["都", "也", "皆", "均"];
const BE = ["is", "are", "was", "were", "be"];
const PLACE = ["on", "in", "at", "by", "near", "over", "under", "behind", "of", "across"];
const MEASURES = "个只条艘座棵株片朵丝点颗轮张栋间幢叶扇匹位名滴抹缕"; // "a boat" is 一艘船
const NOT = [
  [new RegExp(`${EDGE}can(?:no|[’']?)t${EDGE}`, "gu"), "can not"],
  [new RegExp(`${EDGE}won[’']t${EDGE}`, "gu"), "will not"],
  [new RegExp(`n[’']t${EDGE}`, "gu"), " not"],
  [new RegExp(`${EDGE}w/(?:o|out)${EDGE}`, "gu"), "without"],
  [new RegExp(`${EDGE}(?:hardly|scarcely|barely)(?= (?:an?|any)${EDGE})`, "gu"), "no"],
  [new RegExp(`(?<![0-9a-z.,:/\\-])0(?= ?(?:[a-z]{3}|[${CHINESE}]))`, "gu"), "没有"], // "0 boats"
  [
    new RegExp(`${EDGE}(?:(?:rain|snow|hail|sleet|wind|fog),? )+or shine${EDGE}`, "gu"),
    "rain or shine",
  ],
];
// "Besides a boat", and "nothing but a boat": 除了船，还有…, 除了船，什么都没有.
const BESIDES = /除了?(?=[^。;!?\n]*(?:[还也][有要想]|什么[都也][没不]|别无|空无))/gu;
const EXCEPT = /除(?=[^了。,;]{1,8}[以之]外)/gu;
const DASH = /[—―]+|--+| [–\-] /gu;
const SLASH = / \/ /gu; // "trees / sunset" are two wishes, "no trees/houses" is one
// "Leave the boat out" is "leave out the boat".
const OUT = new RegExp(
  `${EDGE}(?:leave|keep) ((?:the|an?|any|all) [a-z]+(?: [a-z]+)?` +
    "(?:(?:,|,? and) (?:the|any|all) [a-z]+(?: [a-z]+)?)*) (?:out|off)" +
    `(?= *(?:$|[,.;:!?)\\n]|(?:of|and|please)${EDGE}))`,
  "gu",
);
// 晴天雨天都可以: either will do.
const EITHER =
  /(?:[晴阴雨雪雾风天下起刮是或者和与、]|还是|白天|黑夜|夜晚|晚上){2,12}(?=[都皆均](?:可以?|行|好|成|没关系|无所谓))/gu;
// Negative prompts of other generators: "--no boats, trees".
const NEGATIVE = new RegExp(`(?:--no|${EDGE}negative prompt)${EDGE}:?([^\\-.;\\n]*)`, "gu");
const STREET = new RegExp(
  `${EDGE}[A-Z][a-z]+(?= (?:Street|Road|Drive|Lane|Avenue|Boulevard|Square)${EDGE})`,
  "gu",
);
const SMALL = new RegExp(`${EDGE}[a-z]{3}`, "u"); // else capitals tell no name
// "Not a single boat" has its object first in Chinese: 一艘船也没有.
const FIRST = new RegExp(
  `(?:连?[一半][${MEASURES}]?|连|什么|任何|别的|其他|其它)` +
    "([^。、,.;也都 \\n]{1,6}?)[也都](?:没有?|不要|看?不见|看不到)" +
    `(?=$|[的了]|[^${CHINESE}])`,
  "gu",
);
const KEEP = ["downs", "fells"]; // "down" and "fell" say nothing of hills
const ON = ["on", "at", "in", "to", "在", "偏", "靠", "于"]; // "the sun (is) on the left"
const AND = ["and", "with", "和", "与"];
const OF = [...ON, "from", "of", "far", "top", "bottom", "upper", "lower"];
const PLACES =
  "in on at over above under below behind by near next before after across through into now here there down up".split(
    " ",
  );
const HIDDEN = ["hidden", "concealed", "veiled", "masked", "obscured"];
const SIDES = ["left", "middle", "right"];
const LIGHT = [...SIDES, "hidden"];
const LESS = new RegExp(
  `${EDGE}([a-z]+)(?:-free|-?less)${EDGE}|${EDGE}([a-z]+) free(?= ([a-z]+))` +
    `|${EDGE}(?:no|non|un)-([a-z]+)${EDGE}`,
  "gu",
);
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
    .filter((token) => !ARTICLES.includes(token))
    .map((token) =>
      count(token) > 3 && /[^sui]s$/u.test(token) && !KEEP.includes(token)
        ? token.slice(0, -1)
        : token,
    );
}

function articles(text) {
  // before which of its tokens an article stands, "a" or "the"
  const found = new Map();
  let at = 0;
  for (const token of text.match(TOKENS) ?? []) {
    if (ARTICLES.includes(token)) found.set(at, token === "the" ? "the" : "a");
    else at++;
  }
  return found;
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
    this.vocabulary = new Map(); // of what was written by hand
    for (const k of this.table.keys()) {
      for (const word of k.split(" ")) this.vocabulary.set(word, this.table.get(word) ?? []);
    }
    this.english = new Set(lexicon.english);
    for (const [marks, keys] of lexicon.wordnet) {
      for (const k of keys) {
        if (!this.table.has(k)) this.table.set(k, marks);
        if (!k.includes(" ")) this.english.add(k); // no misspelt word
      }
    }
  }

  /**
   * Reads a prompt: `{named, excluded, unknown, places, cut}`; places are sides on which something
   * other than the sun or the moon is to stand: they are not drawn.
   */
  understand(prompt) {
    const whole = strip(prompt);
    const kept = shorten(whole);
    const plain = this.clean(kept);
    const said = this.pieces(plain);
    const { named, excluded, unknown, places } = this.lookUp(said);
    const asked = unknown.filter(([, isOpen]) => isOpen).slice(0, GUESSES);
    const guesses = new Map(asked.map((item) => [item, this.guess(item[0])]));
    const open = (guess) =>
      Object.fromEntries(
        Object.entries(guess ?? {}).filter(
          ([name, value]) => !(excluded[name] ?? []).includes(value),
        ),
      );
    const lost = [];
    let told = named;
    for (const item of unknown) {
      const found = open(guesses.get(item));
      told = { ...found, ...told };
      if (!Object.keys(found).length) lost.push(...item[0].split(" "));
    }
    // The student does not know what is left open, either.
    const opened = said.some((piece) => ["any", "open"].some((m) => piece.marks?.includes(m)));
    const all = opened ? {} : this.guess(plain);
    // The student does not know what stands there, or does not.
    if (said.some((piece) => hasSide(piece) || isNo(piece))) delete all.light;
    told = { ...open(all), ...told };
    const cut = count(kept) < count(whole);
    return { named: told, excluded, unknown: [...new Set(lost)], places, cut };
  }

  /** A text in small letters, with words for emoji, and with simplified characters. */
  clean(text) {
    const says = (word) =>
      (this.table.get(key(word).join(" ")) ?? []).some((mark) => this.of.has(mark));
    let plain = text.normalize("NFKC");
    if (SMALL.test(plain)) {
      plain = plain.replace(STREET, (word) => (says(word.toLowerCase()) ? "" : word));
    }
    plain = [...plain.toLowerCase()].map((c) => this.letters.get(c) ?? c).join("");
    for (const [short, long] of NOT) plain = plain.replace(short, long);
    const negative = (_, list) => `, no ${list.replaceAll(",", "、")}`;
    plain = plain.replace(SLASH, " | ").replace(NEGATIVE, negative).replace(DASH, ", ");
    plain = plain.replace(OUT, "leave out $1").replace(EITHER, "无论$&,");
    plain = plain.replace(EXCEPT, "除了").replace(BESIDES, "有").replace(FIRST, "没有$1，");
    // "Boatless", "a fog free forest", "a no-boat lake".
    return plain.replace(LESS, (whole, one, two, following, three) => {
      const stem = one ?? two ?? three;
      const known = this.table.has(key(whole).join(" "));
      return known || !says(stem) || (following && !says(following)) ? whole : `without ${stem}; `;
    });
  }

  /** The longest phrases that the lexicon knows, and single unknown tokens. */
  pieces(text) {
    const said = key(text).map((word) => this.spell(word));
    const found = [];
    const after = articles(text);
    for (let start = 0; start < said.length;) {
      let end = Math.min(start + LONGEST, said.length);
      while (end > start && !this.table.has(said.slice(start, end).join(" "))) end--;
      const marks = end > start ? this.table.get(said.slice(start, end).join(" ")) : null;
      if (!marks) end = start + 1;
      const tokens = said.slice(start, end);
      const joined = tokens.join(isChinese(tokens.join("")) ? "" : " ");
      found.push({ text: joined, start, end, marks, article: after.get(start) ?? "" });
      start = end;
    }
    return found;
  }

  /** An unknown word of four letters or more, as the one word that is a slip away. */
  spell(word) {
    if (word.length < 4 || this.vocabulary.has(word) || !/^[a-z]+$/.test(word)) return word;
    if (this.english.has(word)) return word;
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
    const unknown = [];
    const clauses = [[]]; // of each piece, what it is to the sun or the moon
    let [scope, since, fresh, before, moon] = ["", 0, true, "", false];
    for (const [index, piece] of said.entries()) {
      let marks = piece.marks ?? [];
      const has = (mark) => marks.includes(mark);
      let values = this.values(piece);
      const onlyBefore = marks.filter((mark) => mark.startsWith("before"));
      if (onlyBefore.length && said[index + 1] && this.isSky(said[index + 1])) {
        values = onlyBefore.map((mark) => mark.split(" ")[1]);
      }
      if (has("last") && !isLast(said, index)) values = []; // "it is a dark house"
      // The open water of a lake.
      if (has("water") && said.some((one) => one.marks?.includes("lake"))) values = [];
      const body = has("sun") || has("moon");
      const pause = PAUSE.test(piece.text);
      moon ||= has("moon") && scope !== "any";
      if (!marks.length && !pause) unknown.push([piece, piece.marks === null && !scope]);
      if (scope && !fresh && this.ends(said, since, index, scope)) scope = "";
      const inside = scope !== "" || (values.length > 0 && this.isGone(said, index));
      if (has("except")) {
        const bare = this.isBare(said.slice(0, index));
        marks = [...marks, bare ? "but" : "not"];
        if (bare && named.get("object")?.[0] === "nothing") named.delete("object");
      }
      if (rulesOutBefore(said, index)) marks = marks.filter((mark) => !NO.includes(mark));
      const negation = NO.find(has);
      if (pause || has("but")) {
        clauses.push([]);
        if (!(scope && this.goesOn(said, since, index, scope))) scope = "";
      } else if (scope === "any") {
        fresh &&= has("stop");
      } else if (has("any")) {
        [scope, since, fresh] = ["any", index, true];
      } else if (negation) {
        // Two of them cancel out: "not without a boat". "Can't see no boat" only insists.
        const double =
          scope && since === index - 1 && !["no", "not", "never"].includes(piece.text);
        [scope, since, fresh] = [double ? "" : negation, index, true];
      } else if (inside) {
        const side = this.kind(said, index);
        if (SIDES.includes(side) && clauses.at(-1).includes("body")) {
          // "the sun is not on the left"
          excluded.set("light", (excluded.get("light") ?? new Set()).add(side));
        }
        const times = values.filter((value) => value !== "night" || !body);
        if (body && !times.length) named.set("light", ["hidden", piece.end]);
        for (const value of times) {
          const name = this.of.get(value);
          excluded.set(name, (excluded.get(name) ?? new Set()).add(value));
        }
        fresh &&= has("stop");
        const measure = [...piece.text].every((c) => `一再${MEASURES}`.includes(c));
        if (scope === "un" && !measure) scope = "";
      } else {
        for (const value of values) {
          if (body && value === "night") continue; // the moon may be seen by day, too
          const name = this.of.get(value);
          const [old, end] = named.get(name) ?? ["day", 0];
          const follows = end === piece.start && value !== "nothing";
          if (old === "day" || before === "的" || follows)
            named.set(name, [value, piece.end]);
        }
      }
      if (!scope && this.opens(said, index)) [scope, since, fresh] = ["not", index - 1, false];
      if (!pause) {
        let kind = this.kind(said, index);
        if (inside) kind = kind === "object" ? "and" : ""; // "no boat on the left"
        const last = clauses.at(-1);
        if (kind || !isChinese(piece.text) || last.at(-1) !== "") last.push(kind);
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
    // "A house, on the left".
    clauses.slice(1).forEach((clause, at) => {
      const last = clauses[at];
      const only = clause.every((kind) => [...SIDES, "on", "of", "stop"].includes(kind));
      if (last.includes("object") && !last.includes("body") && only) last.push(...clause);
    });
    const near = [];
    const places = new Set();
    for (const clause of clauses) {
      const found = placed(clause);
      near.push(...found.map(([distance, at]) => [distance, clause[at]]));
      if (!clause.includes("object")) continue;
      clause.forEach((kind, i) => {
        if (SIDES.includes(kind) && !found.some(([, at]) => at === i)) places.add(kind);
      });
    }
    near.sort(([a, s], [b, t]) => a - b || (s < t ? -1 : 1));
    if (near.length) told.light ??= near[0][1];
    return { named: told, excluded: without, places: [...places], unknown: runs(unknown) };
  }

  values(piece) {
    return [...this.of.keys()].filter((value) => (piece.marks ?? []).includes(value));
  }

  attributesOf(piece) {
    return new Set(this.values(piece ?? {}).map((value) => this.of.get(value)));
  }

  /** Does a word such as "in" end what is ruled out from the piece `since` on? */
  ends(said, since, index, scope) {
    const { text, marks } = said[index];
    if (scope === "any" && ALL.includes(text)) return true; // 无论晴雨都有船
    if (!marks?.includes("end")) return false;
    // "no boat as night falls", but "no such thing as a boat"
    if (text === "as") return this.values(said[index - 1]).length > 0;
    // "whether in rain or in sunshine"
    if (scope === "any" && OR.includes(said[index - 1].text)) return false;
    return text !== "and" || !this.hasMore(said, since, index, scope);
  }

  /** Does what is ruled out go on after a comma? See `reader._goes_on`. */
  goesOn(said, since, index, scope) {
    const mark = said[index].text;
    const past = said.slice(since + 1, index);
    if (mark === ":") return !past.length && scope !== "any"; // "exclude: boats"
    if (!past.length || ![",", "、", "/"].includes(mark)) return false;
    if (mark !== ",") return !isNew(said, since, index);
    // "no boats or trees, a lake or a sea"
    const over = past.some((piece) => [...OR, ...LAST].includes(piece.text));
    const known = new Set(past.flatMap((piece) => [...this.attributesOf(piece)]));
    for (let at = index; at < Math.min(said.length - 1, index + REACH); at++) {
      const { text, marks } = said[at + 1];
      if (OR.includes(text)) return !over || at === index;
      // "whether it rains, snows or shines"
      if (scope === "any") return !over && this.isAlike(said[at + 1], known);
      if (LAST.includes(text)) {
        const more = this.hasMore(said, since, at + 1, scope);
        return more && !over && this.isAlike(said[at + 2], known);
      }
      const paused = PAUSE.test(text) && ![",", "、", "/"].includes(text);
      const ended = (marks ?? []).some((mark) => ["end", "but", ...NO].includes(mark));
      if (isNew(said, since, at) || paused || ended) return false;
    }
    return false;
  }

  /** Does what is ruled out go on after "and"? See `reader._has_more`. */
  hasMore(said, since, index, scope) {
    if (isNew(said, since, index)) return false;
    const values = this.values(said[index + 1] ?? {});
    if (values.includes("clear") || values.includes("nothing")) return false;
    if (scope === "without") return true;
    const past = new Set(
      said.slice(since + 1, index).flatMap((piece) => [...this.attributesOf(piece)]),
    );
    const things = [...past].every((name) => name === "object" || name === "weather");
    return things && this.isAlike(said[index + 1], past) && isLast(said, index + 1);
  }

  /** Does a piece say something of some attributes, and of no other? */
  isAlike(piece, names) {
    return names.size > 0 && isSame(this.attributesOf(piece), names);
  }

  /** Does a phrase such as "no people" begin a list: "no people or boats"? */
  opens(said, index) {
    const following = said[index + 1]?.text;
    if (following === undefined || !/^(?:(?:no|without) |没有.|不要.)/u.test(said[index].text)) {
      return false;
    }
    if (["和", "与", ...OR].includes(following)) return true;
    return following === "," && this.goesOn(said, index - 1, index + 1, "not");
  }

  /** Does what follows a thing rule it out: "boats are not allowed", 船除外? */
  isGone(said, index) {
    const piece = said[index];
    const before = said[index - 1];
    if (isPlace(piece) || (isPlace(before) && !this.values(before).length)) return false;
    let at = index + 1;
    if (isPlace(said[at])) {
      const place = at + (this.values(said[at]).length ? 1 : 2);
      if (BE.includes(said[place]?.text)) at = place;
    }
    const own = this.attributesOf(piece);
    for (; at < Math.min(said.length, index + REACH); at++) {
      const { text, marks: may } = said[at];
      const marks = may ?? [];
      if (rulesOutBefore(said, at)) return true;
      const joined =
        ["and", "和", "与", "、", ...OR].includes(text) ||
        isSame(this.attributesOf(said[at]), own);
      const idle = (marks.includes("stop") && !marks.includes("end")) || text.endsWith("ly");
      if (!idle && (piece.article || !joined)) return false;
    }
    return false;
  }

  /** Is there nothing so far, so that "except a boat" has a boat? */
  isBare(past) {
    for (const piece of past.slice(-REACH).reverse()) {
      if ([".", ";", "!", "?", "。"].includes(piece.text)) return false;
      if (["nothing", "nobody", "none", "bare"].includes(piece.text)) return true;
      if (this.values(piece).includes("nothing")) return true;
      if ((piece.marks ?? []).some((mark) => NO.includes(mark))) return true;
    }
    return false;
  }

  isSky(piece) {
    const times = this.values(piece).some((value) => this.of.get(value) === "time");
    return times || ["sky", "skie", "weather"].includes(piece.text);
  }

  /** What a piece is to the sun or the moon: one of them, a side, or another thing. */
  kind(said, index) {
    const { text, marks: may } = said[index];
    const marks = may ?? [];
    const beside = marks.filter((mark) => mark.startsWith("beside")).sort();
    if (beside.length) {
      return this.isSide(said, index) ? beside[0].split(" ")[1] : "";
    }
    if (marks.includes("sun") || marks.includes("moon")) return "body";
    const thing = this.values(said[index])
      .map((value) => this.of.get(value))
      .find((name) => name === "object" || name === "land");
    if (thing) return thing === "land" && marks.includes("end") ? "place" : thing;
    if (ON.includes(text)) return "on";
    if (AND.includes(text)) return "and";
    if (text === "of") return "of";
    if (text === "by" || text === "被") return "by";
    return marks.includes("stop") ? "stop" : "";
  }

  /** Does a word tell a side? Not in "right above", "left home", "a hidden lake". */
  isSide(said, index) {
    const { text } = said[index];
    const [last, following] = [said[index - 1], said[index + 1]];
    if (HIDDEN.includes(text)) {
      const things = following?.marks?.includes("end") ? [] : this.values(following ?? {});
      return !things.some((value) => ["land", "object"].includes(this.of.get(value)));
    }
    if (text !== "left" && text !== "right") return true;
    if (last && OF.includes(last.text.split(" ").at(-1))) return true;
    const after = following?.text.split(" ")[0] ?? ",";
    if (PAUSE.test(after) || after === "of" || AND.includes(after)) return true;
    const marks = last?.marks ?? [];
    return !PLACES.includes(after) && (marks.includes("sun") || marks.includes("moon"));
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

function hasSide(piece) {
  const said = piece.text.split(" ");
  const beside = (piece.marks ?? []).some((mark) => mark.startsWith("beside"));
  return beside || said.includes("left") || said.includes("right");
}

function isNo(piece) {
  return (piece.marks ?? []).some((mark) => [...NO, "gone", "except"].includes(mark));
}

const isPlace = (piece) => PLACE.includes(piece?.text.split(" ")[0]);
const isSame = (a, b) => a.size === b.size && [...a].every((item) => b.has(item));

// Does an article or a wish begin something new? "No boats, a house" has a house.
function isNew(said, since, index) {
  const following = said[index + 1];
  if (!following) return false;
  const alike = said.slice(since + 1, index).map((piece) => piece.article);
  return WISHES.includes(following.text) || !["", ...alike].includes(following.article);
}

// Does a clause or a phrase end after a piece?
function isLast(said, index) {
  const following = said[index + 1];
  if (!following || PAUSE.test(following.text)) return true;
  return (following.marks ?? []).some((mark) => mark === "end" || mark === "but");
}

// Does a piece rule out what stands before it? Not in "missing its boat".
function rulesOutBefore(said, index) {
  const { text, marks: may } = said[index];
  const marks = may ?? [];
  const hidden = marks.includes("beside hidden") && /^(?:no|不)/u.test(text);
  if (!hidden && !marks.includes("gone")) return false;
  return isLast(said, index) || ["from", "了"].includes(said[index + 1].text);
}

// Where the sides stand on which the sun or the moon may be, after their distances.
function placed(clause) {
  const found = [];
  clause.forEach((side, at) => {
    if (!LIGHT.includes(side)) return;
    const after = clause.slice(at + 1).filter((kind) => kind !== "stop");
    const of = after[0] === "of";
    if (side === "middle" && of && ["land", "object", "hidden"].includes(after[1])) return;
    const other = after[0] === "object";
    clause.forEach((kind, body) => {
      if (kind !== "body") return;
      const between = clause.slice(Math.min(at, body) + 1, Math.max(at, body));
      const on = between.every((k) => k === "on");
      if (body < at && on && (between.length || !other)) {
        found.push([between.length, at]);
        return;
      }
      let barred = other || between.includes("object") || between.includes("and");
      barred ||= at < body && (of || clause.slice(0, at).includes("object"));
      if (side === "hidden") {
        const land = between.includes("land") || between.includes("place");
        barred ||= land && !between.includes("by");
        barred ||= at < body && !between.every((k) => k === "stop");
      }
      if (!barred && between.length < NEAR) found.push([between.length, at]);
    });
  });
  return found;
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
