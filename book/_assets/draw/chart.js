// The book's frontier with the reader's own device in it: quality against images a second.

import { frontier } from "./studio.js";

const HEIGHT = 320;
const ROOM = { left: 56, right: 16, top: 16, bottom: 44 };
const SVG = "http://www.w3.org/2000/svg";

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

let recorded; // what the book's machine reached, with the quality of each way

/** Draws into a figure what was recorded, and what `own` holds: "4 float32" to `{second}`. */
export async function chart(figure, own) {
  if (!figure) return;
  recorded ??= await frontier();
  figure.hidden = false;
  const width = Math.max(320, Math.min(640, figure.clientWidth)); // text keeps its size
  const { points, fid, machine } = recorded;
  const mine = Object.entries(own)
    .filter(([name]) => fid[name]) // int8 has no recorded quality
    .map(([name, { second }]) => ({
      steps: name.split(" ")[0],
      x: second,
      y: fid[name],
    }));
  const all = [...points, ...mine];
  const low = Math.log10(Math.min(...all.map(({ x }) => x)) / 1.5);
  const high = Math.log10(Math.max(...all.map(({ x }) => x)) * 1.5);
  const most = Math.max(...all.map(({ y }) => y)) * 1.1;
  const across = (x) =>
    ROOM.left + ((Math.log10(x) - low) / (high - low)) * (width - ROOM.left - ROOM.right);
  const down = (y) => HEIGHT - ROOM.bottom - (y / most) * (HEIGHT - ROOM.top - ROOM.bottom);

  const svg = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  const told = mine.map(
    ({ steps, x, y }) => `steps ${steps}: ${x.toFixed(0)} images a second, FID ${y.toFixed(0)}`,
  );
  svg.append(node("title", {}, `Quality against speed, your device: ${told.join("; ")}.`));
  for (let power = Math.ceil(low); power <= high; power++) {
    const x = across(10 ** power);
    svg.append(
      node("line", { x1: x, x2: x, y1: ROOM.top, y2: HEIGHT - ROOM.bottom, class: "grid" }),
    );
    svg.append(node("text", { x, y: HEIGHT - 24, "text-anchor": "middle" }, String(10 ** power)));
  }
  for (let y = 0; y < most; y += 20) {
    svg.append(
      node("line", {
        x1: ROOM.left,
        x2: width - ROOM.right,
        y1: down(y),
        y2: down(y),
        class: "grid",
      }),
    );
    svg.append(node("text", { x: ROOM.left - 8, y: down(y) + 4, "text-anchor": "end" }, String(y)));
  }
  svg.append(
    node("text", { x: width / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "images per second"),
  );
  svg.append(
    node(
      "text",
      { x: 14, y: HEIGHT / 2, transform: `rotate(-90 14 ${HEIGHT / 2})`, "text-anchor": "middle" },
      "FID (lower is better)",
    ),
  );
  for (const { name, x, y } of points) {
    const dot = node("circle", { cx: across(x), cy: down(y), r: 4, class: "recorded" });
    dot.append(node("title", {}, name));
    svg.append(dot);
  }
  for (const { steps, x, y } of mine) {
    const [cx, cy] = [across(x), down(y)];
    svg.append(node("circle", { cx, cy, r: 9, class: "own" }));
    svg.append(node("text", { x: cx, y: cy + 4, class: "own", "text-anchor": "middle" }, steps));
  }
  figure.querySelector("svg")?.remove();
  figure.prepend(svg);
  figure.querySelector("[data-part=machine]").textContent = machine;
}

function node(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}
