// Objects side by side, each in a viewer of its own, with cameras that move together.
import { iconButton, make } from "./dom.js";
import { formatBytes, formatCount } from "./files.js";
import { createViewer } from "./viewer.js";

export const MAX_TILES = 8;

/**
 * A grid of viewers that fills an element.
 *
 * Options are those of `createViewer`, and `placeholder`: an element shown while nothing else is;
 * `onMessage(sentence, kind)`: called with what went wrong.
 * Events: `change` (tiles came, went or got ready), `camera` (a person moved one).
 */
export class Stage extends EventTarget {
  #tiles = [];
  #solo = null;
  #linked = true;
  #turning = false;
  #element;
  #placeholder;
  #options;
  #onMessage;

  constructor(element, { placeholder, onMessage, ...options }) {
    super();
    this.#element = element;
    this.#placeholder = placeholder;
    this.#options = options;
    this.#onMessage = onMessage;
    element.classList.add("stage");
    this.#arrange();
  }

  /** Viewers, in the order they are shown. */
  get viewers() {
    return this.#tiles.map((tile) => tile.viewer);
  }

  /** Whether everything is loaded and drawn. */
  get settled() {
    return this.#tiles.every((tile) => !tile.busy && tile.viewer.settled);
  }

  /** Whether moving one camera moves all. */
  get linked() {
    return this.#linked;
  }

  set linked(linked) {
    this.#linked = linked;
    if (linked && this.#tiles.length) this.#follow(this.#tiles[0]);
  }

  /** Whether the cameras go round by themselves. */
  get turning() {
    return this.#turning;
  }

  set turning(turning) {
    this.#turning = turning;
    this.#shareTurning();
    this.#changed();
  }

  /**
   * Show one more object. Errors go to `onMessage`.
   *
   * @param source as for `Viewer.load`
   * @param name of the file, whose suffix says the format
   * @param label what to call it, and how large it is: `{name, bytes}`; the file itself by default. `mesh`: an async
   *   function that gives the source of its triangle mesh, where there is one
   * @returns {Promise<Viewer | null>}
   */
  async add(source, name, label = {}) {
    if (this.#tiles.length >= MAX_TILES) {
      this.#onMessage(`${name} was not opened: at most ${MAX_TILES} objects can be shown at once.`, "error");
      return null;
    }
    const tile = this.#makeTile(label.name ?? name);
    try {
      await this.load(tile.viewer, source, name, label);
    } catch (error) {
      this.remove(tile.viewer);
      this.#onMessage(error.message, "error");
      if (error.cause) console.info(error.cause);
      return null;
    }
    return tile.viewer;
  }

  /** Show another file in one of the viewers; `label` as for `add`. */
  async load(viewer, source, name, label = {}) {
    const tile = this.#tiles.find((candidate) => candidate.viewer === viewer);
    await this.#working(tile, async () => {
      const info = await viewer.load(source, name);
      tile.mesh = label.mesh;
      this.#describe(tile, { ...info, ...label });
      if (this.#linked && tile !== this.#tiles[0]) this.#follow(this.#tiles[0]);
    });
    this.#changed();
  }

  /** Mark a tile as busy while something is done. */
  async #working(tile, action) {
    tile.busy = true;
    tile.element.classList.add("busy");
    try {
      await action();
    } finally {
      tile.busy = false;
      tile.element.classList.remove("busy");
    }
  }

  /** Take a viewer away. */
  remove(viewer) {
    const place = this.#tiles.findIndex((tile) => tile.viewer === viewer);
    if (place < 0) return;
    const [tile] = this.#tiles.splice(place, 1);
    if (this.#solo === tile) this.#solo = null;
    tile.viewer.dispose();
    tile.element.remove();
    this.#shareTurning();
    this.#arrange();
  }

  /** Show one of the tiles alone, or all again. */
  solo(place) {
    const tile = this.#tiles[place];
    if (!tile) return;
    this.#solo = this.#solo === tile ? null : tile;
    this.#arrange();
  }

  /** Whether some object has a triangle mesh. */
  get hasMeshes() {
    return this.#tiles.some((tile) => tile.mesh);
  }

  /** Whether some object is shown as its mesh. */
  get showsMeshes() {
    return this.viewers.some((viewer) => viewer.showsTriangles);
  }

  /** Show the meshes of all objects that have one, or their splats. Errors go to `onMessage`. */
  async showMeshes(shown) {
    const switched = this.#tiles.filter((tile) => tile.mesh);
    await Promise.all(switched.map((tile) => this.#working(tile, async () => {
      if (shown) await tile.viewer.showTriangles(await tile.mesh());
      else tile.viewer.showSplats();
    }).catch((error) => this.#onMessage(error.message, "error"))));
    this.#changed();
  }

  /** Do something with every viewer. */
  each(action) {
    this.viewers.forEach(action);
  }

  /** Rotate, zoom or pan, as `Viewer.nudge`. */
  nudge(step) {
    const moved = this.#linked ? this.#tiles.slice(0, 1) : this.#tiles;
    for (const tile of moved) tile.viewer.nudge(step);
  }

  /** All cameras back to where they started. */
  resetCameras() {
    this.each((viewer) => viewer.resetCamera());
    this.dispatchEvent(new Event("camera"));
  }

  /** One PNG of all that is shown. */
  async screenshot() {
    const shown = this.#tiles.filter((tile) => !tile.element.hidden);
    if (shown.length === 1) return shown[0].viewer.screenshot();
    const images = [];
    for (const tile of shown) images.push(await createImageBitmap(await tile.viewer.screenshot()));
    const canvas = make("canvas", {
      width: String(images.reduce((sum, image) => sum + image.width, 0)),
      height: String(Math.max(...images.map((image) => image.height))),
    });
    let left = 0;
    for (const image of images) {
      canvas.getContext("2d").drawImage(image, left, 0);
      left += image.width;
    }
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #makeTile(name) {
    const caption = make("div", { class: "caption" });
    const surface = make("div", { class: "surface" });
    const element = make("section", { class: "tile busy", "aria-label": name },
      surface, caption, make("div", { class: "spinner" }));
    this.#element.append(element);
    const viewer = createViewer(surface, this.#options);
    viewer.canvas.setAttribute("role", "img");
    viewer.canvas.setAttribute("aria-label", `3D view of ${name}`);
    const tile = { viewer, element, caption, busy: true };
    viewer.addEventListener("camera", () => {
      if (this.#linked) this.#follow(tile);
      this.dispatchEvent(new Event("camera"));
    });
    this.#tiles.push(tile);
    this.#describe(tile, { name });
    this.#shareTurning();
    this.#arrange();
    return tile;
  }

  #describe(tile, { name, splats, bytes }) {
    const facts = [splats === undefined ? "Loading" : formatCount(splats)];
    if (bytes !== undefined) facts.push(formatBytes(bytes));
    tile.caption.replaceChildren(
      make("span", { class: "name", title: name }, name),
      make("span", { class: "facts" }, facts.join(" · ")),
      iconButton("close", `Close ${name}`, () => this.remove(tile.viewer)),
    );
  }

  /** Move the other cameras as that of one tile, measured by the size of what each of them shows. */
  #follow(leader) {
    const { camera, fit } = leader.viewer;
    for (const { viewer } of this.#tiles) {
      if (viewer === leader.viewer) continue;
      const scale = viewer.fit.radius / fit.radius;
      viewer.setCamera({
        ...camera,
        radius: camera.radius * scale,
        target: viewer.fit.center.map((value, axis) => value + (camera.target[axis] - fit.center[axis]) * scale),
      });
    }
  }

  #shareTurning() {
    this.#tiles.forEach((tile, place) => {
      tile.viewer.setTurning(this.#turning && (place === 0 || !this.#linked));
    });
  }

  #arrange() {
    for (const tile of this.#tiles) tile.element.hidden = this.#solo !== null && tile !== this.#solo;
    const count = this.#solo ? 1 : this.#tiles.length;
    this.#element.dataset.tiles = String(count);
    if (this.#tiles.length) this.#placeholder?.remove();
    else if (this.#placeholder) this.#element.append(this.#placeholder);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
