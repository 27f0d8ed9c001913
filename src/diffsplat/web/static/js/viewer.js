// One object on one canvas: the component that every page is built on. It draws only when something changed.
import {
  Color, OrbitControls, PackedSplats, PerspectiveCamera, Quaternion, Scene, SparkRenderer, SplatMesh, Vector3,
  WebGLRenderer,
} from "./vendor.js";
import { ballAround } from "./bounds.js";
import { requireReadable, upAxisOf } from "./files.js";
import { DEFAULT_ELEVATION, DEFAULT_FOCAL, fittingDistance, poseOf, positionOf, verticalFov } from "./orbit.js";
import { filteredPly, plyOf } from "./ply_writing.js";
import { disposeOf, readGlb } from "./triangle_meshes.js";
import { VisibilityFilter } from "./visibility.js";

const X_AXIS = new Vector3(1, 0, 0);
const QUARTERS_ABOUT_X = { y: 0, "-y": 2, z: -1 };
const TURNS_PER_MINUTE = 4;
const CROP_MARGIN = 1.1;
const WHOLE = [[0, 1], [0, 1], [0, 1]];

/**
 * Make a viewer that fills an element.
 *
 * @param element its parent; its size is followed
 * @param options `camera`: a pose `{azimuth, elevation, radius, target, focal}`, any part of it, for what is
 *   loaded; the rest is chosen to show the whole object. `background`: a CSS colour or "transparent".
 *   `up`: "y", "-y" or "z" for every file, instead of what each says. `opacity`: hide splats below it, 0..1.
 * @returns {Viewer}
 */
export function createViewer(element, options = {}) {
  return new Viewer(element, options);
}

/** Events: `load` (an object is shown), `camera` (a person moved it). */
export class Viewer extends EventTarget {
  #element;
  #renderer;
  #scene = new Scene();
  #camera = new PerspectiveCamera();
  #controls;
  #spark;
  #mesh = null;
  #triangles = null;
  #filter = new VisibilityFilter();
  #crop = WHOLE;
  #file = null;
  #options;
  #focal;
  #fit = { center: [0, 0, 0], radius: 0.7 };
  #loading = null;
  #frame = 0;
  #placing = false;
  #resizing;
  #info = null;
  #up = "y";

  constructor(element, options) {
    super();
    this.#element = element;
    this.#options = { background: "#ffffff", camera: {}, opacity: 0, ...options };
    this.#focal = this.#options.camera.focal ?? DEFAULT_FOCAL;
    this.#renderer = new WebGLRenderer({ antialias: false, alpha: true, powerPreference: "high-performance" });
    this.#renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    element.append(this.canvas);
    this.#spark = new SparkRenderer({
      renderer: this.#renderer, enableLod: false, onDirty: () => this.invalidate(),
    });
    this.#scene.add(this.#spark);
    this.#controls = this.#makeControls();
    this.#filter.threshold = this.#options.opacity;
    this.setBackground(this.#options.background);
    this.#resizing = new ResizeObserver(() => this.#resize());
    this.#resizing.observe(element);
    this.#resize();
    this.resetCamera();
  }

  /** The canvas that is drawn on. */
  get canvas() {
    return this.#renderer.domElement;
  }

  /** `{name, bytes, splats}` of the displayed object, or null. */
  get info() {
    return this.#info;
  }

  /** Up axis of the displayed file. */
  get up() {
    return this.#up;
  }

  /** Centre and radius of the object, in the viewer's world. */
  get fit() {
    return this.#fit;
  }

  /** The pose `{azimuth, elevation, radius, target, focal}` of the camera. */
  get camera() {
    return { ...poseOf(this.#camera.position, this.#controls.target), focal: this.#focal };
  }

  /** Whether what is drawn is up to date: loaded, sorted for this camera, painted. */
  get settled() {
    const { sorting, sortDirty, dirty } = this.#spark;
    return !this.#loading && !this.#frame && !sorting && !sortDirty && !dirty;
  }

  /**
   * Show a file instead of what is shown; a later call wins over one that is still loading.
   *
   * @param source an address of this page's own server, an ArrayBuffer, or a Blob
   * @param name its file name, which says the format
   * @returns {Promise<object>} `info`
   * @throws {Error} one sentence, when it cannot be read
   */
  async load(source, name) {
    requireReadable(name);
    const ticket = (this.#loading = {});
    try {
      const bytes = await bytesOf(source, name);
      const up = this.#options.up ?? upAxisOf(bytes, name);
      const size = bytes.byteLength;
      const file = new Blob([bytes]); // Decoding takes the bytes away.
      const splats = await decode(bytes, name);
      if (ticket !== this.#loading) {
        splats.dispose();
        return this.#info;
      }
      this.#file = file;
      this.#show(splats, up);
      this.#info = { name, bytes: size, splats: splats.numSplats };
    } finally {
      if (ticket === this.#loading) this.#loading = null;
    }
    this.dispatchEvent(new Event("load"));
    return this.#info;
  }

  /** Whether the object's triangles are shown, not its splats. */
  get showsTriangles() {
    return this.#triangles?.visible ?? false;
  }

  /**
   * Show the triangle mesh of the object instead of its splats; it stays loaded until another object is.
   *
   * @param source of a `.glb`, as for `load`
   * @throws {Error} one sentence, when it cannot be read
   */
  async showTriangles(source) {
    if (!this.#triangles) {
      const splats = this.#mesh;
      const triangles = await readGlb(await bytesOf(source, "The mesh"));
      if (splats !== this.#mesh || this.#triangles) return disposeOf(triangles);
      this.#triangles = triangles;
      this.#scene.add(triangles);
    }
    this.#switchTo(true);
  }

  /** Show the splats again. */
  showSplats() {
    this.#switchTo(false);
  }

  /** Show nothing. */
  clear() {
    this.#loading = null;
    this.#info = null;
    this.#removeMesh();
    this.invalidate();
  }

  /** Move the camera; what `pose` leaves out stays. */
  setCamera(pose) {
    const wanted = { ...this.camera, ...pose };
    this.#focal = wanted.focal;
    this.#controls.target.set(...wanted.target);
    this.#camera.position.copy(positionOf(wanted));
    this.#placing = true;
    this.#controls.update();
    this.#placing = false;
    this.#updateProjection();
    this.invalidate();
  }

  /** Back to the pose that the options ask for, or one that shows the whole object. */
  resetCamera() {
    const chosen = this.#options.camera;
    const focal = chosen.focal ?? DEFAULT_FOCAL;
    this.setCamera({
      azimuth: 0,
      elevation: DEFAULT_ELEVATION,
      radius: fittingDistance(this.#fit.radius, focal),
      target: this.#fit.center,
      focal,
      ...chosen,
    });
  }

  /** Rotate around the object by degrees, zoom by a factor, or pan by shares of the image. */
  nudge({ azimuth = 0, elevation = 0, zoom = 1, right = 0, up = 0 }) {
    const pose = this.camera;
    const across = pose.radius / this.#focal;
    const shift = new Vector3(right * across, up * across, 0).applyQuaternion(this.#camera.quaternion);
    this.setCamera({
      azimuth: pose.azimuth + azimuth,
      elevation: Math.max(-89.9, Math.min(89.9, pose.elevation + elevation)),
      radius: pose.radius / zoom,
      target: shift.add(this.#controls.target).toArray(),
    });
    this.dispatchEvent(new Event("camera"));
  }

  /** @param color any CSS colour, or "transparent" */
  setBackground(color) {
    const clear = color === "transparent";
    this.#renderer.setClearColor(clear ? new Color(0) : new Color(color), clear ? 0 : 1);
    this.invalidate();
  }

  /** @param up what points up in the file: "y", "-y" or "z" */
  setUp(up) {
    if (!(up in QUARTERS_ABOUT_X)) throw new Error(`The up axis is ${up}, expected y, -y or z.`);
    this.#up = up;
    if (!this.#mesh) return;
    this.#turnMesh();
    this.resetCamera();
  }

  /** @param opacity splats below it are hidden, 0..1 */
  setOpacityThreshold(opacity) {
    this.#filter.threshold = opacity;
    this.#mesh?.updateVersion();
    this.invalidate();
  }

  /** @param crop `[[least, most], …]` of x, y and z in the file, as shares 0..1 of the object; 0 and 1 hide nothing */
  setCrop(crop) {
    if (crop === this.#crop) return;
    this.#crop = crop;
    this.#applyCrop();
    this.#mesh?.updateVersion();
    this.invalidate();
  }

  /** The splats that are shown, as a `.ply`. @returns {Promise<Blob>} */
  async shownSplats() {
    const keeps = (center, opacity) => this.#filter.shows(center, opacity);
    return filteredPly(await this.#file.arrayBuffer(), keeps) ?? plyOf(this.#mesh.packedSplats, keeps, this.#up);
  }

  /** @param turning whether the camera orbits on its own */
  setTurning(turning) {
    this.#controls.autoRotate = turning;
    this.invalidate();
  }

  /** The current image as a PNG. @returns {Promise<Blob>} */
  async screenshot() {
    await this.whenSettled();
    this.#draw();
    return new Promise((resolve, reject) => {
      this.canvas.toBlob((blob) => {
        if (blob) resolve(blob);
        else reject(new Error("The screenshot could not be taken."));
      }, "image/png");
    });
  }

  /** Wait until the image is up to date (at once during auto-rotation). */
  async whenSettled() {
    while (!this.settled && !this.#controls.autoRotate) {
      await pause();
    }
  }

  /** Draw again soon. */
  invalidate() {
    this.#frame ||= requestAnimationFrame(() => this.#onFrame());
  }

  /** Free everything; the viewer is of no use afterwards. */
  dispose() {
    cancelAnimationFrame(this.#frame);
    this.#resizing.disconnect();
    this.#controls.dispose();
    this.canvas.remove();
    this.#spark.onDirty = undefined;
    this.#spark.sortDirty = false;
    this.#free();
  }

  /** Let the sorting end first: spark leaves a rejected promise behind when its worker goes in the midst of it. */
  async #free() {
    while (this.#spark.sorting) await pause();
    this.#removeMesh();
    this.#spark.dispose();
    this.#renderer.dispose();
    this.#renderer.forceContextLoss();
  }

  #makeControls() {
    const controls = new OrbitControls(this.#camera, this.canvas);
    controls.enableDamping = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    controls.dampingFactor = 0.12;
    controls.autoRotateSpeed = TURNS_PER_MINUTE;
    controls.zoomToCursor = false;
    controls.addEventListener("change", () => {
      this.invalidate();
      if (!this.#placing) this.dispatchEvent(new Event("camera"));
    });
    return controls;
  }

  #show(splats, up) {
    this.#removeMesh();
    this.#mesh = new SplatMesh({
      packedSplats: splats,
      splatEncoding: splats.splatEncoding,
      objectModifier: this.#filter.modifier,
    });
    this.#up = up;
    this.#turnMesh();
    this.#applyCrop();
    this.#scene.add(this.#mesh);
    this.resetCamera();
  }

  #turnMesh() {
    const angle = (QUARTERS_ABOUT_X[this.#up] * Math.PI) / 2;
    this.#mesh.quaternion.copy(new Quaternion().setFromAxisAngle(X_AXIS, angle));
    this.#mesh.updateMatrixWorld();
    const { center, radius } = ballAround(this.#mesh.packedSplats);
    const turned = new Vector3(...center).applyQuaternion(this.#mesh.quaternion);
    this.#fit = { center: turned.toArray(), radius };
  }

  #applyCrop() {
    if (!this.#mesh) return;
    const { center, radius } = ballAround(this.#mesh.packedSplats);
    const at = (share, axis) => center[axis] + (2 * share - 1) * CROP_MARGIN * radius;
    this.#filter.box = this.#crop.map(([least, most], axis) => [
      least <= 0 ? -Infinity : at(least, axis), most >= 1 ? Infinity : at(most, axis),
    ]);
  }

  #switchTo(triangles) {
    if (!this.#triangles) return;
    this.#triangles.visible = triangles;
    this.#mesh.visible = !triangles;
    this.invalidate();
  }

  #removeMesh() {
    if (!this.#mesh) return;
    if (this.#triangles) {
      this.#scene.remove(this.#triangles);
      disposeOf(this.#triangles);
      this.#triangles = null;
    }
    this.#scene.remove(this.#mesh);
    this.#mesh.dispose();
    this.#mesh = null;
  }

  #resize() {
    const width = Math.max(1, this.#element.clientWidth);
    const height = Math.max(1, this.#element.clientHeight);
    this.#renderer.setSize(width, height, false);
    this.#updateProjection();
    this.invalidate();
  }

  #updateProjection() {
    const width = Math.max(1, this.#element.clientWidth);
    const height = Math.max(1, this.#element.clientHeight);
    const distance = this.#camera.position.distanceTo(this.#controls.target);
    this.#camera.fov = verticalFov(this.#focal, width, height);
    this.#camera.aspect = width / height;
    this.#camera.near = Math.max(distance, this.#fit.radius) / 500;
    this.#camera.far = (distance + this.#fit.radius) * 100;
    this.#camera.updateProjectionMatrix();
  }

  #onFrame() {
    this.#frame = 0;
    const { autoRotate } = this.#controls;
    if (this.#controls.update() || autoRotate) this.invalidate();
    this.#draw();
  }

  #draw() {
    this.#updateProjection();
    this.#renderer.render(this.#scene, this.#camera);
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

async function bytesOf(source, name) {
  if (source instanceof ArrayBuffer) return source.slice(0);
  if (source instanceof Blob) return source.arrayBuffer();
  const response = await fetch(source);
  if (!response.ok) {
    const reason = (await response.text()).trim();
    throw new Error(reason || `${name} could not be loaded (status ${response.status}).`);
  }
  return response.arrayBuffer();
}

async function decode(bytes, name) {
  if (bytes.byteLength === 0) throw new Error(`${name} is empty.`);
  const splats = new PackedSplats({ fileBytes: bytes, fileName: name });
  try {
    await splats.initialized;
  } catch (error) {
    throw new Error(`${name} is not a readable splat file.`, { cause: error });
  }
  if (!splats.numSplats) throw new Error(`${name} contains no splats.`);
  return splats;
}
