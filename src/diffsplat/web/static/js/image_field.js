// An input for one image, dropped or chosen, with a preview of what the model will see.
import { iconButton, make } from "./dom.js";

const TYPES = "image/png,image/jpeg,image/webp";

/** Event: `change`. */
export class ImageField extends EventTarget {
  #box;
  #choose;
  #label;
  #preview;
  #onError;
  #file = null;
  #loading = null;

  /**
   * @param box its element
   * @param options `label`: its name; `preview`: turns a File into a Blob to show, and throws for bad ones;
   *   `onError`: called with the sentence of such an error
   */
  constructor(box, { label, preview, onError }) {
    super();
    this.#box = box;
    this.#label = label;
    this.#preview = preview;
    this.#onError = onError;
    const input = make("input", { type: "file", accept: TYPES, hidden: true, "aria-label": label, change: () => {
      this.set(input.files[0] ?? null);
      input.value = "";
    } });
    this.#choose = make("button", { type: "button", class: "choose", click: () => input.click() });
    this.#box.append(this.#choose, input);
    this.#acceptDrops();
    this.clear();
  }

  /** The file, or null. */
  get file() {
    return this.#file;
  }

  /** Whether it can be used. */
  set available(available) {
    this.#box.hidden = !available;
    if (!available) this.clear();
  }

  get available() {
    return !this.#box.hidden;
  }

  /** Its name. */
  set label(label) {
    this.#label = label;
    if (!this.#file) this.clear();
  }

  /** Nothing is chosen. */
  clear() {
    this.#file = this.#loading = null;
    this.#show(`${this.#label}: drop or browse`);
    this.dispatchEvent(new Event("change"));
  }

  /** Take an image once its preview has loaded, unless another comes in the meantime. */
  async set(file) {
    if (!file) return;
    const ticket = (this.#loading = {});
    this.#file = null;
    this.#show("Loading …");
    try {
      const preview = await this.#preview(file);
      if (ticket !== this.#loading) return;
      const url = URL.createObjectURL(preview);
      this.#file = file;
      this.#show(make("img", { src: url, alt: `${this.#label}: ${file.name}`, load: () => URL.revokeObjectURL(url) }));
      this.#box.append(iconButton("close", "Remove image", () => this.clear()));
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      if (ticket !== this.#loading) return;
      this.clear();
      this.#onError(error.message);
    }
  }

  #show(content) {
    this.#box.querySelector(".icon-button")?.remove();
    this.#choose.replaceChildren(content);
  }

  #acceptDrops() {
    const over = (event, inside) => {
      event.preventDefault();
      this.#box.classList.toggle("over", inside);
    };
    this.#box.addEventListener("dragover", (event) => over(event, true));
    this.#box.addEventListener("dragleave", (event) => over(event, false));
    this.#box.addEventListener("drop", (event) => {
      over(event, false);
      this.set(event.dataTransfer.files[0] ?? null);
    });
  }
}
