// The random numbers of NumPy, bit for bit: what `genlib.models.sampling.stream(seed, i)` gives.
//
// A seed and a spawn key are stirred into 256 bits (SeedSequence, after Melissa O'Neill's seed_seq),
// which start a generator (PCG64: O'Neill, 2014). A ziggurat turns its bits into normal numbers
// (Marsaglia and Tsang, 2000).

const { fround, imul } = Math;

// ---------------------------------------------------------------- from a seed to a stream

function words(number) {
  // 32 bits each, the lowest first
  const found = [];
  for (let n = BigInt(number); n > 0n || !found.length; n >>= 32n)
    found.push(Number(n & 0xffffffffn));
  return found;
}

function seedWords(seed, key) {
  const entropy = words(seed);
  while (entropy.length < 4) entropy.push(0); // so that no key looks like a part of the seed
  entropy.push(...key.flatMap(words));
  let constant = 0x43b0d7e5;
  const hash = (x, factor) => {
    x = imul(x ^ constant, (constant = imul(constant, factor)));
    return x ^ (x >>> 16);
  };
  const mix = (x, y) => {
    const z = (imul(0xca01f9dd, x) - imul(0x4973f715, y)) | 0;
    return z ^ (z >>> 16);
  };
  const pool = entropy.slice(0, 4).map((word) => hash(word, 0x931e8875));
  for (let i = 0; i < entropy.length; i++) {
    for (let j = 0; j < 4; j++) {
      if (i !== j) pool[j] = mix(pool[j], hash(i < 4 ? pool[i] : entropy[i], 0x931e8875));
    }
  }
  constant = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => hash(pool[i % 4], 0x58f38ded) >>> 0);
}

const limbs = (number) =>
  Float64Array.from({ length: 8 }, (_, i) => Number((number >> BigInt(16 * i)) & 0xffffn));
const MULTIPLIER = limbs((2549297995355413924n << 64n) | 4865540595714422341n);

/** A stream of random numbers; `key` is a list of whole numbers, as NumPy's `spawn_key`. */
export class Stream {
  constructor(seed, key) {
    const w = seedWords(seed, key).map(BigInt);
    const [a, b, c, d] = [0, 2, 4, 6].map((i) => (w[i + 1] << 32n) | w[i]);
    const step = (((c << 64n) | d) << 1n) | 1n;
    this.step = limbs(step);
    this.state = limbs(((a << 64n) | b) + step);
    this.advance();
    this.rest = -1; // the upper half of a draw whose lower half was used
  }

  // state × MULTIPLIER + step, modulo 2^128: in limbs of 16 bits, so that no sum exceeds 2^53.
  advance() {
    const { state, step } = this;
    for (let k = 7; k >= 0; k--) {
      let sum = step[k];
      for (let i = 0; i <= k; i++) sum += state[i] * MULTIPLIER[k - i];
      state[k] = sum;
    }
    for (let k = 0, carry = 0; k < 8; k++) {
      const sum = state[k] + carry;
      carry = Math.floor(sum / 65536);
      state[k] = sum - carry * 65536;
    }
  }

  /** 64 bits, as two numbers of 32: the lower half, then the upper one. */
  next64() {
    this.advance();
    const s = this.state;
    let low = (s[0] ^ s[4]) | ((s[1] ^ s[5]) << 16);
    let high = (s[2] ^ s[6]) | ((s[3] ^ s[7]) << 16);
    const turn = s[7] >> 10;
    if (turn & 32) [low, high] = [high, low];
    const bits = turn & 31;
    if (!bits) return [low >>> 0, high >>> 0];
    const rest = 32 - bits;
    return [((low >>> bits) | (high << rest)) >>> 0, ((high >>> bits) | (low << rest)) >>> 0];
  }

  next32() {
    if (this.rest >= 0) {
      const kept = this.rest;
      this.rest = -1;
      return kept;
    }
    const [low, high] = this.next64();
    this.rest = high;
    return low;
  }

  /** A number in [0, 1) of 53 bits. */
  double() {
    const [low, high] = this.next64();
    return (high * 2 ** 21 + (low >>> 11)) / 2 ** 53;
  }

  float() {
    return (this.next32() >>> 8) / 2 ** 24;
  }

  /** A draw of the standard Gumbel distribution. */
  gumbel() {
    for (;;) {
      const u = 1 - this.double();
      if (u < 1) return -Math.log(-Math.log(u));
    }
  }

  /** A standard normal number, float32. */
  normal() {
    for (;;) {
      const bits = this.next32();
      const i = bits & 0xff;
      const size = bits >>> 9;
      const x = fround(size * WIDTH[i]) * (bits & 0x100 ? -1 : 1);
      if (size < INSIDE[i]) return x;
      if (i === 0) {
        for (;;) {
          // the tail
          const far = fround(fround(-1 / EDGE) * fround(Math.log1p(-this.float())));
          const y = -fround(Math.log1p(-this.float()));
          if (fround(y + y) > fround(far * far)) {
            return (size >>> 8) & 1 ? -fround(fround(EDGE) + far) : fround(fround(EDGE) + far);
          }
        }
      }
      const height = fround(fround(fround(HEIGHT[i - 1] - HEIGHT[i]) * this.float()) + HEIGHT[i]);
      if (height < Math.exp(-0.5 * x * x)) return x;
    }
  }
}

// ---------------------------------------------------------------- the ziggurat

// 256 layers of equal area under exp(-x²/2); the last one ends at EDGE and holds the tail.
const EDGE = 3.6541528853610088;
const AREA = 0.00492867323399;
const WIDTH = new Float32Array(256); // of a layer, over 2^23
const INSIDE = new Uint32Array(256); // below it, a number is surely under the curve
const HEIGHT = new Float32Array(256);

{
  const curve = (x) => Math.exp(-0.5 * x * x);
  let [x, last] = [EDGE, EDGE];
  const base = AREA / curve(EDGE);
  INSIDE[0] = Math.round((EDGE / base) * 2 ** 23);
  WIDTH[0] = base / 2 ** 23;
  HEIGHT[0] = 1;
  for (let i = 255; i > 0; i--) {
    WIDTH[i] = x / 2 ** 23;
    HEIGHT[i] = curve(x);
    last = x;
    x = i > 1 ? Math.sqrt(-2 * Math.log(AREA / x + curve(x))) : 0;
    INSIDE[i] = Math.round((x / last) * 2 ** 23);
  }
}

/** The noise of image `i`, as `sampling.normals` draws it: Float32Array of `count` numbers. */
export function normals(count, seed, i) {
  const stream = new Stream(seed, [i]);
  return Float32Array.from({ length: count }, () => stream.normal());
}

export const tables = { WIDTH, INSIDE, HEIGHT };
