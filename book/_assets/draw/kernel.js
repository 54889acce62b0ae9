// The kernel's networks as JavaScript sees them: `Flow` steps, `Decoder` decodes, one image a call.

import { arrays, get } from "./weights.js";

const { fround } = Math;
const SIDE = 8; // an image is 8 × 8 tokens
const LATENTS = 16 * 16;
const PIXELS = 64 * 64;
// Of times: genlib.models.flow.FREQUENCIES.
const FREQUENCIES = Float32Array.from({ length: 32 }, (_, i) => Math.exp((i * Math.log(200)) / 31));

// The smallest module with an operation of SIMD: the bytes 0, sixteen times.
const SIMD = [
  ...[0, 97, 115, 109, 1, 0, 0, 0], // "\0asm", version 1
  ...[1, 5, 1, 96, 0, 1, 123], // a function that returns a vector
  ...[3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11], // i32.const 0, i8x16.splat, end
];

/** Can this browser run the kernel? */
export const usable = () =>
  typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from(SIMD));

/** Compiles the kernel: with relaxed SIMD where the browser has it. */
export async function compile(folder) {
  for (const name of ["kernel-relaxed.wasm", "kernel-simd.wasm"]) {
    const bytes = await (await get(new URL(name, folder))).arrayBuffer();
    if (WebAssembly.validate(bytes)) return WebAssembly.compile(bytes);
  }
  throw new Error("This browser's WebAssembly refuses the kernel.");
}

/** A memory of its own, into which networks are loaded. */
export class Kernel {
  constructor(module) {
    this.call = new WebAssembly.Instance(module).exports;
  }

  get bytes() {
    return this.call.memory.buffer.byteLength;
  }

  floats(at, length) {
    // a new view each time: memory that grows moves
    return new Float32Array(this.call.memory.buffer, at, length);
  }

  room(length) {
    return this.call.take(4 * length);
  }

  /** Hands the kernel a file's arrays, and returns where it has put them, as one list. */
  parts(buffer, quantized, first = 0) {
    const found = arrays(buffer).slice(first);
    this.staging = this.grown(Math.max(...found.map(({ data }) => data.byteLength)));
    const made = found.map(({ name, shape, data }) => {
      new Uint16Array(this.call.memory.buffer, this.staging, data.length).set(data);
      const columns = shape.at(-1);
      const rows = data.length / columns;
      if (!name.endsWith("kernel")) return this.call.vector(this.staging, data.length);
      return this.call.matrix(this.staging, rows, columns, quantized(rows, columns) ? 1 : 0);
    });
    const list = this.call.take(4 * made.length);
    new Uint32Array(this.call.memory.buffer, list, made.length).set(made);
    return { list, count: made.length };
  }

  grown(bytes) {
    // one place for arrays as they come, large enough for each
    if (this.size >= bytes) return this.staging;
    this.size = bytes;
    return this.call.take(bytes);
  }
}

/** The time at which a part of the steps is done: `genlib.models.flow.shifted`. */
function shifted(part, shift) {
  if (shift === 1) return part;
  const noise = 1 - part;
  return 1 - (shift * noise) / (1 + (shift - 1) * noise);
}

/** A flow, from the bytes of its weights and the settings on their card. */
export class Flow {
  constructor(kernel, { buffer, config }, int8 = false) {
    const { transformer: t, channels, shortcut, spread, shift = 1, text_width: textWidth } = config;
    Object.assign(this, { kernel, spread, shift, shortcut, size: LATENTS * channels });
    // Small matrices stay as they are: what comes in and goes out, times, texts.
    const large = (rows, columns) => int8 && rows >= t.width && columns >= t.width;
    const { list } = kernel.parts(buffer, large);
    this.at = kernel.call.flow(
      list,
      t.layers,
      t.width,
      t.heads,
      t.kv_heads,
      t.hidden,
      channels,
      shortcut ? 1 : 0,
      t.epsilon,
    );
    this.rotate(t.width / t.heads, t.rotary_base);
    this.x = kernel.room(this.size);
    this.v = kernel.room(this.size);
    this.text = kernel.room(textWidth);
    this.none = kernel.room(textWidth);
    this.time = kernel.room(2 * FREQUENCIES.length);
    this.width = kernel.room(2 * FREQUENCIES.length);
    this.textWidth = textWidth;
  }

  // What `transformer.rotation` returns; the kernel adds the neighbour times the sine.
  rotate(size, base) {
    const { call } = this.kernel;
    const cos = this.kernel.floats(call.cosines(this.at), SIDE * SIDE * size);
    const sin = this.kernel.floats(call.sines(this.at), SIDE * SIDE * size);
    for (let i = 0; i < cos.length; i++) {
      const speed = fround(1 / base ** (((i % size) - (i % 2)) / size));
      const angle = fround(Math.floor(i / size) * speed);
      cos[i] = Math.cos(angle);
      sin[i] = i % 2 ? Math.sin(angle) : -Math.sin(angle);
    }
  }

  waves(at, number) {
    const found = this.kernel.floats(at, 2 * FREQUENCIES.length);
    FREQUENCIES.forEach((frequency, i) => {
      const angle = fround(fround(number) * frequency);
      found[i] = Math.cos(angle);
      found[i + FREQUENCIES.length] = Math.sin(angle);
    });
  }

  velocity(text) {
    this.kernel.call.velocity(this.at, this.x, text, this.time, this.width, this.v);
    return this.kernel.floats(this.v, this.size);
  }

  /** Takes one step of the Euler solver: `Flow.step`. Returns where the image is then. */
  step(time, width, guidance) {
    this.waves(this.time, time);
    this.waves(this.width, width);
    let v = this.velocity(this.text);
    if (guidance !== 1) {
      const asked = v.slice();
      v = this.velocity(this.none).map((free, i) => fround(free + guidance * (asked[i] - free)));
    }
    const x = this.kernel.floats(this.x, this.size);
    for (let i = 0; i < x.length; i++) x[i] += fround(fround(width) * v[i]);
    return x;
  }

  /** Walks from noise to latents: `Flow.sample`. `seen` is called after each step but the last. */
  sample(text, noise, { steps, guidance = 1, seen = () => {} }) {
    this.kernel.floats(this.text, this.textWidth).set(text);
    this.kernel.floats(this.x, this.size).set(noise);
    let x;
    for (let i = 0; i < steps; i++) {
      const [time, after] = [i, i + 1].map((done) => shifted(done / steps, this.shift));
      x = this.step(time, after - time, guidance);
      if (i < steps - 1)
        seen(
          i + 1,
          x.map((number) => number * this.spread),
        );
    }
    return x.map((number) => number * this.spread);
  }
}

/** The tokenizer's decoder. */
export class Decoder {
  constructor(kernel, { buffer, config }, int8 = false) {
    const {
      levels,
      width,
      pixel_width: thin,
      encoder_blocks: before,
      decoder_blocks: blocks,
    } = config;
    const encoder = 4 + 4 * before; // arrays of the encoder, which stand first
    this.kernel = kernel;
    const { list, count } = kernel.parts(
      buffer,
      (rows, columns) => int8 && rows >= width && columns >= width,
      encoder,
    );
    this.at = kernel.call.decoder(list, count, blocks, levels.length, width, thin);
    this.size = LATENTS * levels.length;
    this.latents = kernel.room(this.size);
    this.pixels = kernel.call.take(4 * PIXELS);
  }

  /** Returns the pixels of latents, RGBA, Uint8ClampedArray (64 × 64 × 4). */
  decode(latents) {
    const { call } = this.kernel;
    this.kernel.floats(this.latents, this.size).set(latents);
    call.decode(this.at, this.latents, this.pixels);
    return new Uint8ClampedArray(call.memory.buffer, this.pixels, 4 * PIXELS).slice();
  }
}
