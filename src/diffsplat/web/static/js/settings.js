// The settings of the viewer and their panel.
import { make } from "./dom.js";
import { UP_AXES } from "./files.js";
import { theme } from "./theme.js";

/** Backgrounds to choose from; "auto" follows the theme. */
export const BACKGROUNDS = ["auto", "#ffffff", "#808080", "#000000", "transparent"];

const NAMES = { auto: "Theme", "#ffffff": "White", "#808080": "Grey", "#000000": "Black", transparent: "None" };
const UP_NAMES = { y: "+Y", "-y": "−Y", z: "+Z" };
const THEME_COLORS = { light: "#ffffff", dark: "#16181d" };

/** The settings of a stage; a `change` event follows every change. */
export class Settings extends EventTarget {
  #stage;
  #background;
  #opacity;
  #crop = [[0, 1], [0, 1], [0, 1]];

  constructor(stage, { background = "auto", opacity = 0 } = {}) {
    super();
    this.#stage = stage;
    this.#background = background;
    this.#opacity = opacity;
    stage.addEventListener("change", () => this.#changed());
  }

  get background() {
    return this.#background;
  }

  set background(color) {
    this.#background = color;
    this.applyBackground();
    this.#changed();
  }

  /** The colour that is drawn. */
  get color() {
    return this.#background === "auto" ? THEME_COLORS[theme()] : this.#background;
  }

  /** What points up in the files, or null where they differ. */
  get up() {
    const found = new Set(this.#stage.viewers.map((viewer) => viewer.up));
    return found.size === 1 ? [...found][0] : null;
  }

  set up(axis) {
    this.#stage.each((viewer) => viewer.setUp(axis));
    this.#changed();
  }

  get opacity() {
    return this.#opacity;
  }

  set opacity(threshold) {
    this.#opacity = Math.min(1, Math.max(0, threshold));
    this.#stage.each((viewer) => viewer.setOpacityThreshold(this.#opacity));
    this.#changed();
  }

  /** `[[least, most], …]` of x, y and z, as shares 0..1 of each object. */
  get crop() {
    return this.#crop;
  }

  /** Hide what lies outside; what is least stays below what is most. */
  cropAt(axis, end, share) {
    const [least, most] = this.#crop[axis];
    const pair = end === 0 ? [Math.min(share, most), most] : [least, Math.max(share, least)];
    this.#crop = this.#crop.with(axis, pair);
    this.applyCrop();
    this.#changed();
  }

  /** Crop again: viewers came. */
  applyCrop() {
    this.#stage.each((viewer) => viewer.setCrop(this.#crop));
  }

  get linked() {
    return this.#stage.linked;
  }

  set linked(linked) {
    this.#stage.linked = linked;
    this.#changed();
  }

  /** To the next background. */
  nextBackground() {
    this.background = following(BACKGROUNDS, this.#background);
  }

  /** To the next up axis. */
  nextUp() {
    this.up = following(UP_AXES, this.up);
  }

  /** Draw the background again: viewers came, or the theme changed. */
  applyBackground() {
    const color = this.color;
    this.#stage.each((viewer) => viewer.setBackground(color));
    document.documentElement.style.setProperty("--stage", color);
    document.documentElement.classList.toggle("see-through", color === "transparent");
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Fill an element with controls for the settings; `onSave` is called for files of what is shown. */
export function createPanel(panel, settings, onSave) {
  const picker = make("input", {
    type: "color", value: "#dfe7f2", "aria-label": "Custom background", title: "Custom",
    input: () => (settings.background = picker.value),
  });
  const backgrounds = BACKGROUNDS.map((color) => choice(NAMES[color], () => (settings.background = color), {
    class: "swatch", "data-color": color,
  }));
  backgrounds.forEach((button, place) => button.style.setProperty("--swatch", BACKGROUNDS[place]));
  const axes = UP_AXES.map((axis) => choice(UP_NAMES[axis], () => (settings.up = axis)));
  const value = make("output");
  const slider = make("input", {
    type: "range", min: "0", max: "1", step: "0.01", "aria-label": "Minimum opacity",
    input: () => (settings.opacity = Number(slider.value)),
  });
  const crops = ["X", "Y", "Z"].map((axis, place) => ["from", "to"].map((word, end) => {
    const input = make("input", {
      type: "range", min: "0", max: "1", step: "0.01", "aria-label": `Crop ${axis} ${word}`,
      input: () => settings.cropAt(place, end, Number(input.value)),
    });
    return input;
  }));
  const link = make("input", { type: "checkbox", change: () => (settings.linked = link.checked) });
  const linkRow = make("label", { class: "check" }, link, "Link cameras");
  panel.append(
    group("Background", make("div", { class: "swatches" }, ...backgrounds, picker)),
    group("Up axis", make("div", { class: "segments" }, ...axes)),
    group("Minimum opacity", make("div", { class: "slide" }, slider, value)),
    group("Crop", make("div", { class: "crops" }, ...crops.flatMap((pair, place) => [make("span", {}, "XYZ"[place]), ...pair]))),
    make("button", { type: "button", class: "save", click: onSave }, "Save as .ply"),
    linkRow,
  );
  const show = () => {
    BACKGROUNDS.forEach((color, place) => press(backgrounds[place], settings.background === color));
    UP_AXES.forEach((axis, place) => press(axes[place], settings.up === axis));
    slider.value = String(settings.opacity);
    value.textContent = `${Math.round(settings.opacity * 100)}%`;
    crops.forEach((pair, axis) => pair.forEach((input, end) => (input.value = String(settings.crop[axis][end]))));
    link.checked = settings.linked;
  };
  settings.addEventListener("change", show);
  show();
  return { linkRow };
}

function group(title, content) {
  return make("fieldset", {}, make("legend", {}, title), content);
}

function choice(name, onClick, attributes = {}) {
  return make("button", { type: "button", click: onClick, "aria-pressed": "false", ...attributes }, name);
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

function following(values, value) {
  return values[(values.indexOf(value) + 1) % values.length];
}
