// Weights from the site: fetched once, checked by their SHA-256, kept in the browser's cache.

const CACHE = "genlib-weights";

/**
 * Returns the arrays of a `.safetensors` file in the order of the model's weights.
 *
 * The file begins with the length of a JSON header, 8 bytes, which tells where each array lies.
 * genlib names arrays "0000/path", "0001/path", …
 */
export function arrays(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  delete header.__metadata__;
  return Object.keys(header)
    .sort()
    .map((name) => {
      const {
        dtype,
        shape,
        data_offsets: [start, end],
      } = header[name];
      if (dtype !== "F16") throw new Error(`${name} is ${dtype}; this page reads F16.`);
      return {
        name,
        shape,
        data: new Uint16Array(buffer.slice(8 + length + start, 8 + length + end)),
      };
    });
}

/** Turns float16 numbers, as bits, into a Float32Array. */
export function toFloats(halves) {
  const made = new Float32Array(halves.length);
  const bits = new Uint32Array(made.buffer);
  for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] & 0x7fff) << 13;
  for (let i = 0; i < halves.length; i++) made[i] *= 2 ** 112; // mends the exponent
  for (let i = 0; i < halves.length; i++) bits[i] |= (halves[i] & 0x8000) << 16;
  return made;
}

async function sha256(buffer) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Fetches a file of the site, or says which one is not there. */
export async function get(url, options) {
  const response = await fetch(url, options);
  if (!response.ok) throw new Error(`${url.pathname} gave ${response.status}.`);
  return response;
}

async function download(url, progress) {
  const response = await get(url, { cache: "no-store" });
  const parts = [];
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    progress(value.length);
  }
  return new Blob(parts).arrayBuffer();
}

/**
 * Fetches the weights of a name, from the cache if they are there.
 *
 * @param folder Where they lie, a URL that ends in a slash.
 * @param progress Is called with the number of bytes that have come since its last call.
 * @returns The card, and the file's bytes as an ArrayBuffer.
 */
export async function load(folder, name, progress = () => {}) {
  const card = await (await get(new URL(`${name}.json`, folder), { cache: "no-cache" })).json();
  const url = new URL(`${name}.safetensors`, folder);
  // Neither a cache nor a digest is to be had where a page comes without https.
  const cache = globalThis.caches && (await caches.open(CACHE).catch(() => null));
  const key = `${url.href}?sha256=${card.sha256}`;
  const kept = cache && (await cache.match(key));
  const buffer = kept ? await kept.arrayBuffer() : await download(url, progress);
  if (kept) progress(buffer.byteLength);
  if (globalThis.crypto?.subtle && (await sha256(buffer)) !== card.sha256) {
    await cache?.delete(key);
    throw new Error(`${name}.safetensors came damaged.`);
  }
  if (cache && !kept) {
    for (const old of await cache.keys()) {
      if (old.url.startsWith(`${url.href}?`)) await cache.delete(old); // of weights before these
    }
    await cache.put(key, new Response(buffer)).catch(() => {}); // a full disk only costs a download
  }
  return { card, buffer };
}
