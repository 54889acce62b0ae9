// Everything between a prompt and its images: weights, words, workers.

import { compile } from "./kernel.js";
import { normals } from "./noise.js";
import { Pool, workersHere } from "./pool.js";
import { Reader } from "./reader.js";
import { Student } from "./student.js";
import { get, load } from "./weights.js";
import { Writer } from "./writer.js";

const HERE = new URL("./", import.meta.url);
const WEIGHTS = new URL("weights/", HERE);
export const TWICE = { steps: 50, guidance: 1.5 }; // the slow way: textbook steps, each run twice

const told = async (name) => (await get(new URL(`${name}.json`, WEIGHTS))).json();

/** The bytes of each file of weights. */
export const sizes = () => told("sizes");

/** What was recorded of the book's machine, for the chart. */
export const frontier = () => told("frontier");

/** Opens what draws. `progress` is called with bytes that have come. */
export async function open(progress) {
  const fetched = (name) => load(WEIGHTS, name, progress);
  const [module, words, fast, tokenizer, student] = await Promise.all([
    compile(HERE),
    told("lexicon"),
    fetched("flow-shortcut"),
    fetched("tokenizer"),
    fetched("text-student"),
  ]);
  return new Studio(
    module,
    words,
    { flow: settings(fast), tokenizer: settings(tokenizer) },
    settings(student),
  );
}

const settings = ({ card, buffer }) => ({ buffer, config: card.config });

class Studio {
  constructor(module, words, files, student) {
    Object.assign(this, { module, files });
    this.student = new Student(student);
    this.writer = new Writer(words, new Reader(words, this.student));
    this.pool = new Pool(workersHere());
    this.size = 16 * 16 * files.flow.config.channels;
  }

  /** Makes the workers ready for a precision; those that are ready stay. */
  async prepare(int8) {
    if (this.int8 === int8) return;
    const { module, files } = this;
    this.int8 = int8; // what is asked for later is loaded after this
    this.bytes = await this.pool.load({ module, files, int8 });
  }

  /** Ends the workers. */
  close() {
    this.pool.close();
    this.slow?.close();
  }

  embed(text) {
    return this.student.outputs(text).embedding;
  }

  noise(seed, i) {
    return normals(this.size, seed, i);
  }

  /**
   * Draws the images of descriptions: those of `genlib.generate` with this seed.
   *
   * @param seen Is called with the number and the pixels of each image, in any order.
   * @returns Milliseconds of each image in its worker, and of all of them together.
   */
  async draw(descriptions, seed, steps, seen) {
    const embedded = new Map(descriptions.map(({ text }) => [text, this.embed(text)]));
    const noises = descriptions.map((_, i) => this.noise(seed, i));
    const start = performance.now();
    const each = await Promise.all(
      descriptions.map(async ({ text }, i) => {
        const { pixels, spent } = await this.pool.draw({
          text: embedded.get(text),
          noise: noises[i],
          steps,
        });
        seen(i, pixels);
        return spent;
      }),
    );
    return { each, all: performance.now() - start };
  }

  /** Draws one image of given noise. */
  frame(text, noise, steps) {
    return this.pool.draw({ text, noise, steps });
  }

  /** Lets both ways start from the same noise; `seen(lane, {done, spent, pixels})` watches them. */
  async race(description, seed, steps, progress, seen) {
    if (!this.slow) {
      const flow = settings(await load(WEIGHTS, "flow", progress));
      this.slow = new Pool(1);
      await this.slow.load({ module: this.module, files: { ...this.files, flow }, int8: false });
    }
    await this.prepare(false);
    const same = { text: this.embed(description.text), noise: this.noise(seed, 0), watched: true };
    const run = async (lane, pool, options) => {
      const { pixels, spent } = await pool.draw({ ...same, ...options }, (so) => seen(lane, so));
      seen(lane, { done: options.steps, spent, pixels });
      return spent;
    };
    return Promise.all([run(0, this.slow, TWICE), run(1, this.pool, { steps })]);
  }
}
