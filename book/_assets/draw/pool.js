// Several workers that draw side by side. A page without cross-origin isolation, as on any static
// host, has no threads that share memory: each worker has the weights for itself.

/** How many workers a device can feed: two where memory or room is small. */
export function workersHere() {
  const cores = navigator.hardwareConcurrency || 2;
  const small = matchMedia("(max-width: 600px)").matches || (navigator.deviceMemory ?? 8) < 4;
  return Math.max(1, Math.min(small ? 2 : 4, cores - 1));
}

export class Pool {
  constructor(size) {
    this.waiting = [];
    this.running = new Map(); // id to what waits for its answer
    this.last = 0;
    this.workers = Array.from({ length: size }, () => {
      const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
      worker.onmessage = ({ data }) => this.heard(worker, data);
      worker.onerror = (event) => this.failed(worker, event);
      return worker;
    });
    this.idle = [...this.workers];
  }

  /** Gives every worker its networks. Returns the bytes of memory that each has. */
  async load(message) {
    const answers = this.workers.map((worker) => this.ask(worker, { kind: "load", ...message }));
    return (await Promise.all(answers))[0].bytes;
  }

  /** Draws one image as soon as a worker is free. */
  draw(message, seen) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ message, seen, resolve, reject });
      this.next();
    });
  }

  /** Forgets what has not begun. */
  clear() {
    this.waiting = [];
  }

  close() {
    for (const worker of this.workers) worker.terminate();
  }

  next() {
    while (this.idle.length && this.waiting.length) {
      const worker = this.idle.shift();
      const { message, seen, resolve, reject } = this.waiting.shift();
      this.ask(worker, { kind: "draw", ...message }, seen)
        .then(resolve, reject)
        .finally(() => {
          this.idle.push(worker);
          this.next();
        });
    }
  }

  ask(worker, message, seen) {
    const id = this.last++;
    return new Promise((resolve, reject) => {
      this.running.set(id, { worker, seen, resolve, reject });
      worker.postMessage({ ...message, id });
    });
  }

  heard(worker, { id, result, error, ...so }) {
    const { seen, resolve, reject } = this.running.get(id);
    if (!result && !error) return seen?.(so);
    this.running.delete(id);
    return error ? reject(new Error(error)) : resolve(result);
  }

  failed(worker, event) {
    // its module did not load
    for (const [id, asked] of this.running) {
      if (asked.worker !== worker) continue;
      this.running.delete(id);
      asked.reject(new Error(event.message || "A worker did not start."));
    }
  }
}
