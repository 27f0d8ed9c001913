// Objects generated in this browser session, latest first.
import { make } from "./dom.js";

const KEY = "diffsplat-jobs";
const MOST = 40;

/** Event: `choose` (detail: the entry `{job, result}`). */
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

  /** Ids of jobs that were remembered before the page was reloaded, oldest first. */
  get remembered() {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  }

  /** Remember a job, so that it is found again after a reload. */
  remember(id) {
    const ids = [...this.remembered.filter((known) => known !== id), id].slice(-MOST);
    sessionStorage.setItem(KEY, JSON.stringify(ids));
  }

  /** Forget a job. */
  forget(id) {
    sessionStorage.setItem(KEY, JSON.stringify(this.remembered.filter((known) => known !== id)));
  }

  /** Add the objects of a job that is done. @returns the first of them */
  add(job) {
    const entries = job.results.map((result) => ({ job, result }));
    for (const entry of entries.toReversed()) this.#addOne(entry);
    this.#box.hidden = this.#entries.length === 0;
    return entries[0];
  }

  /** Mark the displayed one. */
  select(entry) {
    for (const { key, button } of this.#entries) button.setAttribute("aria-pressed", String(key === entry));
  }

  #addOne(entry) {
    const label = `${entry.job.prompt || "from image"}, seed ${entry.result.seed}`;
    const image = make("img", { alt: "" });
    const button = make("button", {
      type: "button", class: "thumb", title: label, "aria-label": label, "aria-pressed": "false",
      click: () => this.dispatchEvent(new CustomEvent("choose", { detail: entry })),
    }, image);
    this.#entries.unshift({ key: entry, button });
    this.#box.prepend(button);
    for (const { button: old } of this.#entries.splice(MOST)) old.remove();
    this.#fill(image, entry.result.files.find((file) => file.suffix === ".png"));
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
