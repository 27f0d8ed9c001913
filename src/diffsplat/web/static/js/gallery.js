// What the server has made, latest first, and what failed.
import { asSentence } from "./api.js";
import { iconButton, make } from "./dom.js";

/** Events: `choose` (detail: the entry `{job, result}`; a failed job has no result), `remove` (detail: the job). */
export class Gallery extends EventTarget {
  #box;
  #api;
  #entries = [];
  #loading = 0;

  constructor(box, api) {
    super();
    this.#box = box;
    this.#api = api;
  }

  /** Whether all thumbnails are loaded. */
  get settled() {
    return this.#loading === 0;
  }

  /** Show these jobs, oldest first, and no others. */
  update(jobs) {
    const ids = new Set(jobs.map(({ id }) => id));
    for (const { job } of [...this.#entries]) if (!ids.has(job.id)) this.remove(job.id);
    for (const job of jobs) if (job.state === "done" || job.state === "failed") this.add(job);
  }

  /** Add the objects of a job that is done, or the sentence of one that failed. @returns the first entry */
  add(job) {
    const known = this.#entries.find((entry) => entry.job.id === job.id);
    if (known) return known;
    const entries = job.results.length ? job.results.map((result) => ({ job, result })) : [{ job, result: null }];
    for (const entry of entries.toReversed()) this.#addOne(entry);
    this.#box.hidden = false;
    return entries[0];
  }

  /** Take a job's entries away. */
  remove(id) {
    for (const entry of this.#entries) if (entry.job.id === id) entry.element.remove();
    this.#entries = this.#entries.filter((entry) => entry.job.id !== id);
    this.#box.hidden = this.#entries.length === 0;
  }

  /** Mark the displayed one. */
  select(entry) {
    for (const { button, ...other } of this.#entries) button.setAttribute("aria-pressed", String(other.result === entry.result));
  }

  #addOne(entry) {
    const { job, result } = entry;
    const label = `${(result ?? job).prompt || "from image"}, ${result ? `seed ${result.seed}` : "failed"}`;
    const content = result ? make("img", { alt: "" }) : make("span", { class: "failed" }, "failed");
    entry.button = make("button", {
      type: "button", class: "thumb", title: result ? label : `${label}: ${asSentence(job.error)}`, "aria-label": label,
      "aria-pressed": "false", click: () => this.dispatchEvent(new CustomEvent("choose", { detail: entry })),
    }, content);
    const remove = iconButton("close", `Delete ${label}`, () => this.dispatchEvent(new CustomEvent("remove", { detail: job })));
    entry.element = make("div", { class: "entry" }, entry.button, remove);
    this.#entries.unshift(entry);
    this.#box.prepend(entry.element);
    if (result) this.#fill(content, result.files.find((file) => file.suffix === ".png"));
  }

  async #fill(image, file) {
    this.#loading += 1;
    try {
      const { blob } = await this.#api.file(file.url);
      image.src = URL.createObjectURL(blob);
    } catch (error) {
      console.info(error);
    }
    this.#loading -= 1;
  }
}
