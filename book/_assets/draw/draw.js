// The page: what a reader types and presses, and what is shown and said.

import { median, chart } from "./chart.js";
import { usable } from "./kernel.js";
import { open, sizes, TWICE } from "./studio.js";
import { refuse } from "./writer.js";

const SIDE = 64; // pixels of an image
const TURN = 20; // seconds in which a walk comes back to where it began
const STILLS = matchMedia("(prefers-reduced-motion: reduce)");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const number = (x) => (x < 10 ? x.toFixed(1) : x.toFixed(0));

for (const root of document.querySelectorAll("[data-draw]")) start(root);

function start(root) {
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const [form, prompt, status, sheet] = ["form", "prompt", "status", "sheet"].map(part);
  const columns = Number(sheet.dataset.columns);
  const count = columns * Number(sheet.dataset.rows);
  const own = {}; // "4 float32" to what this device reached
  let studio; // a promise, once somebody wants to draw
  let turn = 0; // of what was asked for last; what is older is not shown any more

  if (!usable() || typeof Worker !== "function") return;
  if (part("without")) part("without").hidden = true;
  part("controls").hidden = false;
  blank(sheet, columns, count / columns);

  const say = (text) => (status.textContent = text);
  const choice = (name, other) => new FormData(form).get(name) ?? other;
  const settings = () => ({
    steps: Number(choice("steps", "4")),
    int8: choice("precision", "float32") === "int8",
    seed: choice("seed", "0").trim(),
  });

  const weigh = () =>
    sizes().then(({ flow, ...rest }) => ({
      first: Object.values(rest).reduce((sum, bytes) => sum + bytes),
      race: flow,
    }));
  weigh().then(
    ({ first, race }) => {
      part("firstBytes").textContent = megabytes(first);
      if (part("raceBytes")) part("raceBytes").textContent = megabytes(race);
    },
    () => {},
  );

  function progress(total) {
    const bar = part("progress");
    let come = 0;
    bar.max = total;
    return (bytes) => {
      come += bytes;
      bar.hidden = false;
      bar.value = come;
      part("megabytes").textContent = `${megabytes(come)} of ${megabytes(total)}`;
    };
  }

  function fetched() {
    part("progress").hidden = true;
    part("megabytes").textContent = "";
  }

  async function opened() {
    if (!studio) {
      say("Fetching the weights, once; your browser keeps them.");
      const begun = performance.now();
      studio = weigh()
        .then(({ first }) => open(progress(first)))
        .then((made) => {
          own.opening = performance.now() - begun;
          return made;
        });
    }
    try {
      return await studio;
    } finally {
      fetched();
    }
  }

  /** Runs what a button asks for, and says what went wrong. */
  async function act(work) {
    const mine = ++turn;
    const current = () => mine === turn;
    const { seed, ...rest } = settings();
    const wrong =
      refuse(prompt.value) ??
      (/^\d{1,20}$/.test(seed) && BigInt(seed) < 2n ** 64n
        ? null
        : "The seed is a whole number from 0 to 18446744073709551615.");
    if (wrong) return say(wrong);
    root.dataset.busy = "yes";
    try {
      const made = await opened();
      made.pool.clear();
      if (current()) await work(made, { seed: BigInt(seed), ...rest }, current);
    } catch (error) {
      studio?.then(
        (made) => made.close(),
        () => {},
      );
      studio = undefined; // so that the next press begins anew
      if (current()) say(`${error.message} Press the button to try again.`);
    } finally {
      if (current()) delete root.dataset.busy;
    }
  }

  const describe = (made, n, seed) => made.writer.describe(prompt.value, n, seed);

  function tell(descriptions) {
    sheet.hidden = false;
    sheet.setAttribute("aria-label", `${count} images of: ${prompt.value}`);
    if (part("notes"))
      part("notes").textContent = [...new Set(descriptions.map((d) => d.note))].join(" ");
    part("descriptions")?.replaceChildren(...descriptions.map(({ text }) => element("li", text)));
  }

  const drawing = () =>
    act(async (made, { seed, steps, int8 }, current) => {
      say("Drawing.");
      await made.prepare(int8);
      const descriptions = describe(made, count, seed);
      tell(descriptions);
      const { each, all } = await made.draw(descriptions, seed, steps, (i, pixels) => {
        if (current()) show(sheet, pixels, i % columns, Math.floor(i / columns));
      });
      if (!current()) return;
      const [one, second] = [median(each), (1000 * count) / all];
      const workers = made.pool.workers.length;
      own[`${steps} ${int8 ? "int8" : "float32"}`] = { one, second };
      say(`${count} images drawn: ${number(one)} ms an image, ${number(second)} images a second.`);
      report(made, workers);
    });

  function report(made, workers) {
    const table = part("numbers");
    if (!table) return;
    const rows = Object.entries(own)
      .filter(([name]) => name !== "opening")
      .map(([name, { one, second }]) => {
        const [steps, precision] = name.split(" ");
        return [steps, precision, number(one), number(second)];
      });
    table.tBodies[0].replaceChildren(
      ...rows.sort().map((row) => {
        const line = element("tr");
        line.append(...row.map((cell) => element("td", cell)));
        return line;
      }),
    );
    const who = workers === 1 ? "One worker" : `${workers} workers, each`;
    part("device").textContent =
      `${who} with ${megabytes(made.bytes)} of memory. ` +
      `From the first press to ready weights: ${(own.opening / 1000).toFixed(1)} s.`;
    table.parentElement.hidden = false;
    chart(part("chart"), own);
  }

  const walking = () =>
    act(async (made, { seed, steps, int8 }, current) => {
      await made.prepare(int8);
      const [description] = describe(made, 1, seed);
      tell([description]);
      const text = made.embed(description.text);
      const [a, b] = [made.noise(seed, 0), made.noise(seed, 1)];
      // A circle through two noises: each point of it is again a normal noise.
      const at = (share) =>
        a.map((x, i) => Math.cos(2 * Math.PI * share) * x + Math.sin(2 * Math.PI * share) * b[i]);
      if (STILLS.matches) {
        for (let i = 0; i < count && current(); i++) {
          const { pixels } = await made.frame(text, at(i / count), steps);
          show(sheet, pixels, i % columns, Math.floor(i / columns));
        }
        return say(`A walk in ${count} stills, as your device asks for little motion.`);
      }
      const canvas = part("walk");
      part("walking").hidden = false;
      canvas.setAttribute("aria-label", `A walk through images of: ${description.text}`);
      say("Walking. Press Stop, or the Escape key, to end it.");
      part("stop").focus();
      const begun = performance.now();
      const times = [];
      const next = async () => {
        // as many of these as there are workers
        let last = 0;
        while (current()) {
          const share = (performance.now() - begun) / 1000 / TURN;
          const { pixels } = await made.frame(text, at(share), steps);
          if (!current()) return;
          if (share > last) show(canvas, pixels);
          last = share;
          const now = performance.now();
          times.push(now);
          while (times[0] < now - 1000) times.shift();
          part("rate").textContent = `${times.length} frames a second`;
        }
      };
      await Promise.all(made.pool.workers.map(next));
    });

  function stop() {
    turn++;
    delete root.dataset.busy;
    part("walking").hidden = true;
    say("Stopped.");
    part("walkButton").focus();
  }

  const racing = () =>
    act(async (made, { seed, steps }, current) => {
      const [description] = describe(made, 1, seed);
      tell([description]);
      part("racing").hidden = false;
    part("racing").scrollIntoView({ block: "nearest" });
      const lanes = ["slow", "fast"].map(part);
      lanes.forEach((canvas) => blank(canvas, 1, 1));
      const all = [2 * TWICE.steps, steps];
      const words = [
        `${TWICE.steps} steps, each run twice`,
        `${steps} ${steps === 1 ? "step" : "steps"}, run once`,
      ];
      say("Both ways start from the same noise.");
      const { race } = await weigh();
      const spent = await made.race(description, seed, steps, progress(race), (lane, so) => {
        fetched();
        if (!current()) return;
        show(lanes[lane], so.pixels);
        part(lane ? "fastTime" : "slowTime").textContent = `${words[lane]}: ${number(so.spent)} ms`;
      });
      if (!current()) return;
      lanes.forEach((canvas, i) =>
        canvas.setAttribute("aria-label", `${description.text}, by ${words[i]}`),
      );
      say(
        `${all[0]} forwards took ${number(spent[0])} ms, ${all[1]} took ${number(spent[1])} ms: ` +
          `${number(spent[0] / spent[1])} times as long. The time to show the way is not counted.`,
      );
    });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (part("walking")) part("walking").hidden = true;
    drawing();
  });
  part("walkButton")?.addEventListener("click", walking);
  part("raceButton")?.addEventListener("click", racing);
  part("stop")?.addEventListener("click", stop);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && part("walking") && !part("walking").hidden) stop();
  });
  part("examples")?.addEventListener("click", ({ target }) => {
    if (target.tagName !== "BUTTON") return;
    prompt.value = target.textContent;
    form.requestSubmit();
  });
  part("save")?.addEventListener("click", () => {
    if (sheet.hidden) return say("There are no images yet. Draw some first.");
    sheet.toBlob((blob) => {
      const link = element("a");
      link.href = URL.createObjectURL(blob);
      link.download = "images.png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function blank(canvas, columns, rows) {
  canvas.width = columns * SIDE;
  canvas.height = rows * SIDE;
}

function show(canvas, pixels, column = 0, row = 0) {
  canvas
    .getContext("2d")
    .putImageData(new ImageData(pixels, SIDE, SIDE), column * SIDE, row * SIDE);
}
