// The page of `diffsplat view`.
import { Api } from "./api.js";
import { download, iconButton, make } from "./dom.js";
import { acceptDrops, pickFiles } from "./drop.js";
import { formatBytes, formatCount, READABLE_SUFFIXES } from "./files.js";
import { createNotices } from "./notices.js";
import { pageOptions } from "./page_options.js";
import { createPanel, Settings } from "./settings.js";
import { createHelp, listen } from "./shortcuts.js";
import { MAX_TILES, Stage } from "./stage.js";
import { startTheme, toggleTheme } from "./theme.js";
import { askToken } from "./token_dialog.js";

const TURN = 15;
const TILT = 10;
const ZOOM = 1.15;
const PAN = 0.1;
const LISTED_ONLY = [{ shown: "Shift ←", what: "pan, with any arrow key" }];
const GESTURES = {
  "Mouse": [["Drag", "rotate"], ["Right-drag", "pan"], ["Wheel", "zoom"]],
  "Touch": [["One finger", "rotate"], ["Two fingers", "zoom and pan"]],
};

const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const options = pageOptions(location.search);
const notify = createNotices(document.body);
root.classList.toggle("bare", options.bare);
root.dataset.state = "busy";

if (document.createElement("canvas").getContext("webgl2")) start();
else notify("This browser does not support WebGL 2, which the viewer needs.", "error");

function start() {
  const { camera, up, opacity } = options;
  const stage = new Stage(byId("stage"), { camera, up, opacity, placeholder: invitation(), onMessage: notify });
  const settings = new Settings(stage, options);
  startTheme(() => settings.applyBackground(), options.theme);
  const { linkRow } = createPanel(byId("panel"), settings, () => saveShown(stage));
  const shortcuts = makeShortcuts(stage, settings);
  const help = createHelp([...shortcuts, ...LISTED_ONLY], GESTURES);
  shortcuts.push({ keys: ["?"], shown: "?", what: "help", run: help });
  listen(shortcuts);
  fillBars(stage, help);
  stage.addEventListener("change", () => {
    settings.applyBackground();
    settings.applyCrop();
    linkRow.hidden = stage.viewers.length < 2;
    showSummary(stage);
  });
  acceptDrops((files) => addFiles(stage, files));
  byId("stage").addEventListener("browse", () => pickFiles(READABLE_SUFFIXES, (files) => addFiles(stage, files)));
  linkRow.hidden = true;
  showGivenFiles(stage).then(() => (root.dataset.listed = ""));
  watch(stage);
  window.diffsplat = { stage, settings };
}

async function showGivenFiles(stage) {
  if (options.results.length) return showResults(stage, options.results);
  try {
    const response = await fetch("files.json");
    const files = response.ok ? await response.json() : [];
    await Promise.all(files.map(({ url, name, sent_as, bytes, mesh }) => {
      return stage.add(url, sent_as, { name, bytes, mesh: mesh && (async () => mesh) });
    }));
  } catch (error) {
    notify("The server of this page has stopped; restart it and reload the page.", "error");
    console.info(error);
  }
}

/** Objects that the server has generated. */
async function showResults(stage, results) {
  const api = new Api(askToken);
  try {
    for (const { job: id, number } of results) {
      const job = await api.job(id);
      const result = job?.results[number];
      if (!result) throw new Error("This result is no longer on the server.");
      const fileOf = (kind) => result.files.find(({ suffix }) => suffix === kind);
      const { blob, name } = await api.file(fileOf(".ply").url);
      const glb = fileOf(".mesh.glb");
      const mesh = glb && (async () => (await api.file(glb.url)).blob);
      await stage.add(blob, name, { name: `${job.prompt || "from image"}, seed ${result.seed}`, mesh });
    }
  } catch (error) {
    notify(error.message, "error");
  }
}

function addFiles(stage, files) {
  return Promise.all(files.map((file) => stage.add(file, file.name)));
}

function makeShortcuts(stage, settings) {
  const step = (change, shifted) => (event) => stage.nudge(event.shiftKey ? shifted : change);
  return [
    { keys: ["ArrowLeft"], shown: "←", what: "rotate left", run: step({ azimuth: -TURN }, { right: -PAN }) },
    { keys: ["ArrowRight"], shown: "→", what: "rotate right", run: step({ azimuth: TURN }, { right: PAN }) },
    { keys: ["ArrowUp"], shown: "↑", what: "tilt up", run: step({ elevation: TILT }, { up: PAN }) },
    { keys: ["ArrowDown"], shown: "↓", what: "tilt down", run: step({ elevation: -TILT }, { up: -PAN }) },
    { keys: ["+", "="], shown: "+", what: "zoom in", run: () => stage.nudge({ zoom: ZOOM }) },
    { keys: ["-", "_"], shown: "−", what: "zoom out", run: () => stage.nudge({ zoom: 1 / ZOOM }) },
    { keys: ["r", "Home"], shown: "R", what: "reset camera", run: () => stage.resetCameras() },
    { keys: [" "], shown: "Space", what: "auto-rotate on or off", run: () => (stage.turning = !stage.turning) },
    { keys: ["m"], shown: "M", what: "mesh or splats", run: () => switchMeshes(stage) },
    { keys: ["b"], shown: "B", what: "next background", run: () => settings.nextBackground() },
    { keys: ["u"], shown: "U", what: "next up axis", run: () => settings.nextUp() },
    { keys: ["["], shown: "[", what: "show fainter splats", run: () => (settings.opacity -= 0.05) },
    { keys: ["]"], shown: "]", what: "hide faint splats", run: () => (settings.opacity += 0.05) },
    { keys: numbers(MAX_TILES), shown: `1…${MAX_TILES}`, what: "show one object, or all", run: (event) => stage.solo(Number(event.key) - 1) },
    { keys: ["o"], shown: "O", what: "open files", run: browse },
    { keys: ["s"], shown: "S", what: "save screenshot", run: () => saveScreenshot(stage) },
    { keys: ["p"], shown: "P", what: "settings", run: togglePanel },
    { keys: ["f"], shown: "F", what: "full screen", run: toggleFullScreen },
    { keys: ["t"], shown: "T", what: "toggle dark mode", run: toggleTheme },
  ];
}

function fillBars(stage, help) {
  const turn = iconButton("turn", "Auto-rotate", () => (stage.turning = !stage.turning), { key: "Space" });
  const mesh = iconButton("mesh", "Mesh or splats", () => switchMeshes(stage), { key: "M", id: "mesh" });
  const settings = iconButton("settings", "Settings", togglePanel, {
    key: "P", id: "settings-button", "aria-expanded": "false", "aria-controls": "panel",
  });
  byId("toolbar").append(
    iconButton("reset", "Reset camera", () => stage.resetCameras(), { key: "R" }),
    turn,
    mesh,
    settings,
    iconButton("camera", "Save screenshot", () => saveScreenshot(stage), { key: "S" }),
    iconButton("expand", "Full screen", toggleFullScreen, { key: "F", class: "icon-button wide-only" }),
  );
  byId("actions").append(
    iconButton("file", "Open files", browse, { key: "O" }),
    iconButton("dark", "Dark mode", toggleTheme, { key: "T", class: "icon-button light-only" }),
    iconButton("light", "Light mode", toggleTheme, { key: "T", class: "icon-button dark-only" }),
    iconButton("help", "Help", help, { key: "?" }),
  );
  stage.addEventListener("change", () => {
    turn.setAttribute("aria-pressed", String(stage.turning));
    mesh.setAttribute("aria-pressed", String(stage.showsMeshes));
    mesh.hidden = !stage.hasMeshes;
  });
}

function switchMeshes(stage) {
  return stage.showMeshes(!stage.showsMeshes);
}

function showSummary(stage) {
  const shown = stage.viewers.map((viewer) => viewer.info).filter(Boolean);
  const [only] = shown;
  const splats = shown.reduce((sum, info) => sum + info.splats, 0);
  const bytes = shown.reduce((sum, info) => sum + info.bytes, 0);
  byId("summary").textContent = shown.length > 1
    ? `${shown.length} objects · ${formatCount(splats)} · ${formatBytes(bytes)}` : "";
  document.title = shown.length === 1 ? `${only.name} · diffsplat` : "diffsplat viewer";
}

async function saveScreenshot(stage) {
  const [first] = stage.viewers;
  if (!first?.info) return notify("There is no object to capture yet.");
  download(await stage.screenshot(), `${stemOf(first.info.name)}.png`);
}

/** A file of what is shown of each object, without what the settings hide. */
async function saveShown(stage) {
  for (const viewer of stage.viewers) {
    if (viewer.info) download(await viewer.shownSplats(), `${stemOf(viewer.info.name)}-cropped.ply`);
  }
}

function stemOf(name) {
  return name.replace(/(\.compressed)?\.[^.]+$/, "");
}

function togglePanel() {
  const panel = byId("panel");
  panel.hidden = !panel.hidden;
  byId("settings-button").setAttribute("aria-expanded", String(!panel.hidden));
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen?.().catch((error) => notify(`Full screen is not available: ${error.message}.`));
}

function browse() {
  byId("stage").dispatchEvent(new Event("browse"));
}

function invitation() {
  return make("div", { class: "invitation" },
    make("img", { src: "static/icon.svg", alt: "", width: "72", height: "72" }),
    make("h1", {}, "Drop splat files here"),
    make("p", {}, READABLE_SUFFIXES.join("  ")),
    make("button", { type: "button", class: "primary", click: browse }, "Choose files"),
  );
}

function numbers(count) {
  return Array.from({ length: count }, (_, place) => String(place + 1));
}

/** Keep `data-state` of the page: "ready" when everything requested is on the screen. */
function watch(stage) {
  const look = () => {
    const ready = "listed" in root.dataset && stage.settled;
    root.dataset.state = ready ? "ready" : "busy";
    setTimeout(look, 100);
  };
  look();
}
