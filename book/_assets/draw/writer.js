// A prompt becomes full descriptions, one for each image, as genlib.text.writer.describe draws them.

import { Stream } from "./noise.js";
import { strip } from "./reader.js";
import { CHARACTERS } from "./student.js";

const WORDS = 2 ** 31; // the streams of words, apart from those of images
const least = Math.log(1e-3);

function logSoftmax(x) {
  const most = Math.max(...x);
  const sum = Math.log(x.reduce((total, v) => total + Math.exp(v - most), 0));
  return x.map((v) => v - most - sum);
}

/** Why a prompt cannot be drawn, or null. */
export function refuse(prompt) {
  if (!strip(prompt))
    return 'The prompt is empty. Say what to show, such as "a sunset over the sea".';
  if (/\p{Surrogate}/u.test(prompt)) return "The prompt is not Unicode. Type it again.";
  return null;
}

export class Writer {
  constructor(lexicon, reader) {
    Object.assign(this, { lexicon, reader, names: reader.names });
    this.values = lexicon.attributes.map(([, values]) => values);
  }

  /** Descriptions of images `0` to `n - 1`: `{text, values, named, note}` each. */
  describe(prompt, n, seed) {
    const found = this.reader.understand(prompt);
    const { combinations, shown } = this.lexicon;
    const reading = this.reading(found);
    const told = reading.map((part) => part.indexOf(Math.max(...part)) > 0);
    const fits = combinations.map((row) =>
      row.reduce((sum, v, i) => sum + (told[i] ? reading[i][1 + v] : 0), 0),
    );
    const best = fits.reduce((a, b) => Math.max(a, b)); // a boat on sand cannot be
    const rows = combinations.filter((_, i) => fits[i] >= best - 1e-9);
    const usual = this.names.map((name, i) => this.usual(name, this.values[i], found));
    const [time, light] = ["time", "light"].map((name) => this.names.indexOf(name));
    const likely = rows.map((row) => {
      const sum = row.reduce((total, v, i) => total + (told[i] ? 0 : usual[i][v]), 0);
      const low = ["dawn", "sunset"].includes(this.values[time][row[time]]);
      const hidden = this.values[light][row[light]] === "hidden";
      return !told[light] && low && hidden ? sum - shown : sum;
    });
    return Array.from({ length: n }, (_, index) => {
      const stream = new Stream(seed, [WORDS, index]);
      let [chosen, most] = [0, -Infinity];
      for (let i = 0; i < rows.length; i++) {
        // the largest sum is a draw from the softmax
        const sum = likely[i] + stream.gumbel();
        if (sum > most) [chosen, most] = [i, sum];
      }
      const row = rows[chosen];
      const asked = reading.map((part) => part.indexOf(Math.max(...part.slice(1)), 1) - 1);
      const values = row.map((v, i) => this.values[i][v]);
      const named = this.names.filter((_, i) => told[i] && asked[i] === row[i]);
      const lost = this.names
        .map((_, i) => told[i] && this.values[i][asked[i]])
        .filter((value) => value && !values.includes(value));
      return {
        text: this.caption(row),
        values,
        named,
        note: this.note(found, values, named, lost),
      };
    });
  }

  reading(found) {
    // log-probabilities of "open" and of each value
    return this.names.map((name, i) => {
      const values = this.values[i];
      const part = new Array(1 + values.length).fill(least);
      part[1 + values.indexOf(found.named[name])] = 0; // "open" is the first
      for (const value of found.excluded[name] ?? []) {
        part[1 + values.indexOf(value)] = this.lexicon.ruledOut;
      }
      return logSoftmax(part);
    });
  }

  usual(name, values, found) {
    // how usual each value is where the prompt leaves it open
    const likely = (this.lexicon.usual[name] ?? values.map(() => 1)).map(Math.log);
    for (const value of found.excluded[name] ?? []) {
      likely[values.indexOf(value)] = this.lexicon.ruledOut;
      if (name === "object" && value !== "nothing") likely[0] += this.lexicon.nothing;
    }
    return likely;
  }

  /** The one plain caption that names all: `captions.full`. */
  caption(row) {
    const { said, bodies } = this.lexicon.caption;
    const night = this.values[0][row[0]] === "night";
    const slots = Object.fromEntries(
      Object.entries(said).map(([slot, phrases]) => [
        slot,
        phrases[row[this.names.indexOf(slot.split("_")[0])]],
      ]),
    );
    const { weather_adj: weather, time_noun: time, land_in: land, light, object } = slots;
    return `a ${weather} ${time} ${land}, ${light}, with ${object}`.replaceAll(
      "{body}",
      bodies[night ? 1 : 0],
    );
  }

  note(found, values, named, lost) {
    let said = named.map((name) => `${name} ${values[this.names.indexOf(name)]}`).join(", ");
    const free = this.names.filter((name) => !named.includes(name));
    const without = this.names.flatMap((name) => [...(found.excluded[name] ?? [])].sort());
    if (lost.length) said += ` (not with it: ${lost.join(", ")}; a boat needs water)`;
    let note = `Understood: ${said || "nothing that can be drawn"}.`;
    if (without.length) note += ` Ruled out: ${without.join(", ")}.`;
    if (free.length) note += ` Left open: ${free.join(", ")}.`;
    if (found.places.length) {
      const what = found.named.object ?? "object";
      note += ` Not drawn: the place of the ${what} (${found.places.join(", ")}).`;
    }
    if (found.unknown.length) {
      const words = found.unknown.slice(0, 8).map((word) => {
        const letters = [...word];
        return letters.length < 25 ? word : `${letters.slice(0, 24).join("")}…`;
      });
      const more = found.unknown.length - 8;
      const rest = more > 0 ? ` and ${more.toLocaleString("en")} more` : "";
      note += ` Unknown words: ${words.join(", ")}${rest}.`;
    }
    if (found.cut)
      note += ` Only the first ${CHARACTERS.toLocaleString("en")} characters were read.`;
    return note;
  }
}
