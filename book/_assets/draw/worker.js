// Draws away from the page, so that the page answers while it draws. One image a message.

import { Decoder, Flow, Kernel } from "./kernel.js";

let flow;
let decoder;

function load({ module, files, int8 }) {
  const kernel = new Kernel(module); // the memory of the one before is given back
  flow = new Flow(kernel, files.flow, int8);
  decoder = new Decoder(kernel, files.tokenizer, int8);
  const none = [new Float32Array(flow.textWidth), new Float32Array(flow.size)];
  for (let i = 0; i < 3; i++) decoder.decode(flow.sample(...none, { steps: 1 })); // warm
  return { bytes: kernel.bytes };
}

/** `watched` after each step sends the image so far; the time for that is not counted. */
function draw({ id, text, noise, steps, guidance, watched }) {
  let start = performance.now();
  let spent = 0;
  const seen = (done, latents) => {
    spent += performance.now() - start;
    self.postMessage({ id, done, spent, pixels: decoder.decode(latents) });
    start = performance.now();
  };
  const latents = flow.sample(text, noise, { steps, guidance, seen: watched ? seen : undefined });
  const pixels = decoder.decode(latents);
  return { pixels, spent: spent + performance.now() - start };
}

self.onmessage = ({ data }) => {
  try {
    const result = data.kind === "load" ? load(data) : draw(data);
    self.postMessage({ id: data.id, result });
  } catch (error) {
    self.postMessage({ id: data.id, error: error.message });
  }
};
