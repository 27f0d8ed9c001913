// The page of `diffsplat serve`: generates an object from a prompt or an image and shows it.
import { Api, asSentence, isFinished } from "./api.js";
import { download, iconButton, make } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { formatBytes, formatCount } from "./files.js";
import { Gallery } from "./gallery.js";
import { createNotices } from "./notices.js";
import { ImageField } from "./image_field.js";
import { RemainingTime } from "./remaining_time.js";
import { startTheme, toggleTheme } from "./theme.js";
import { askToken } from "./token_dialog.js";
import { createViewer } from "./viewer.js";

const SEEDS = 1_000_000;
const NUMBERS = ["seed", "steps", "guidance", "count"];
const DEFAULTED = ["steps", "guidance"]; // left to the model while they are empty
const MAPS = ["control", "control-2", "control-3"];
const CONDITIONS = ["image", ...MAPS];
const IMAGE_TYPES = ["image/png", "image/jpeg", "image/webp"];

const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const notify = createNotices(document.body);
const api = new Api(askToken);
const gallery = new Gallery(byId("gallery"), api);
let models = [];
let shown = null;
let asked = null; // to be shown once it is loaded
let comparing = false;
root.dataset.state = "busy";

if (document.createElement("canvas").getContext("webgl2")) start();
else notify("This browser does not support WebGL 2, which this page needs.", "error");

async function start() {
  const viewer = createViewer(byId("surface"));
  viewer.canvas.setAttribute("role", "img");
  startTheme(() => viewer.setBackground(getComputedStyle(root).getPropertyValue("--stage").trim()));
  const fields = {
    image: imageField("image", "Image of the object", (file) => api.cutOut(file, framing())),
    ...Object.fromEntries(MAPS.map((name) => [name, imageField(name, "Control map", async (file) => file)])),
    ip_adapter_image: imageField("ip_adapter_image", "Image as a prompt", async (file) => file),
  };
  fillBars(viewer);
  fields.image.addEventListener("change", () => (byId("framing").hidden = !fields.image.file));
  byId("framing").addEventListener("change", () => byId("border").checkValidity() && fields.image.set(fields.image.file));
  gallery.addEventListener("choose", ({ detail }) => choose(viewer, detail, fields));
  gallery.addEventListener("remove", ({ detail }) => remove(viewer, detail));
  acceptDrops((files) => takeDropped(files, fields), "Drop an image");
  try {
    await api.open();
    const catalogue = await api.catalogue();
    fillForm(catalogue, fields);
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      generate(viewer, fields);
    });
    byId("prompt").addEventListener("keydown", ({ key, ctrlKey, metaKey }) => key === "Enter" && (ctrlKey || metaKey) && submit());
    await restore(viewer);
    document.addEventListener("visibilitychange", () => document.hidden || refresh(viewer));
  } catch (error) {
    notify(error.message, "error");
  }
  watch(viewer);
}

function imageField(id, label, preview) {
  return new ImageField(byId(id), { label, preview, onError: (sentence) => notify(sentence, "error") });
}

/** How an image is cut out and framed. */
function framing() {
  return { cutout: byId("cutout").value, keep_framing: byId("keep-framing").checked || "", border: byId("border").value };
}

/** Steps and guidance of the chosen model, with an image or a control map, or without. */
function ownNumbers(given) {
  const model = models.find(({ name }) => name === byId("model").value);
  return given
    ? { steps: model.image_steps, guidance: model.image_guidance }
    : { steps: model.steps, guidance: model.guidance };
}

function fillForm({ models: served, limits, samplers }, fields) {
  models = served;
  const select = byId("model");
  select.append(...models.map(({ name }) => make("option", { value: name }, name)));
  byId("sampler").append(...samplers.map((name) => make("option", { value: name }, name)));
  byId("steps").max = limits.steps;
  byId("count").max = limits.count;
  const showDefaults = () => {
    const own = ownNumbers(CONDITIONS.some((name) => fields[name].file));
    for (const name of DEFAULTED) byId(name).placeholder = own[name];
  };
  const choose = () => {
    const model = models.find(({ name }) => name === select.value);
    for (const name of DEFAULTED) byId(name).value = "";
    fields.image.available = model.takes.image;
    MAPS.forEach((name, number) => {
      const kind = model.takes.control[number];
      fields[name].label = `Control map (${kind})`;
      fields[name].available = kind !== undefined;
    });
    fields.ip_adapter_image.available = model.takes.ip_adapter_image;
    byId("note").hidden = Object.values(fields).some(({ available }) => available);
    byId("note").textContent = `${model.name} takes text only.`;
    byId("examples").hidden = model.examples.length === 0;
    byId("examples").replaceChildren(...model.examples.map(exampleButton));
    showDefaults();
  };
  select.addEventListener("change", choose);
  for (const field of Object.values(fields)) field.addEventListener("change", showDefaults);
  choose();
  const lock = iconButton("locked", "Keep the seed", () => lockSeed(lock.getAttribute("aria-pressed") !== "true"), {
    id: "lock", "aria-pressed": "false",
  });
  byId("seed").after(lock);
  byId("seed").addEventListener("input", () => lockSeed(true));
}

/** Whether the next objects get the seed that is there, or a new one. */
function lockSeed(locked) {
  byId("lock").setAttribute("aria-pressed", String(locked));
}

function exampleButton(prompt) {
  return make("button", { type: "button", click: () => {
    byId("prompt").value = prompt;
    submit();
  } }, prompt);
}

function submit() {
  if (!byId("generate").disabled) byId("form").requestSubmit();
}

async function generate(viewer, fields) {
  const prompt = byId("prompt").value.trim();
  if (!prompt && !fields.image.file) {
    byId("prompt").focus();
    notify(fields.image.available ? "Enter a prompt or add an image." : "Enter a prompt first.", "error");
    return;
  }
  const { ip_adapter_image: imagePrompt } = fields;
  if (imagePrompt.available && !imagePrompt.file) {
    notify("Add an image as a prompt: this model has an IP-Adapter.", "error");
    return;
  }
  if (byId("lock").getAttribute("aria-pressed") !== "true") byId("seed").value = Math.floor(Math.random() * SEEDS);
  const values = {
    prompt,
    negative_prompt: byId("negative-prompt").value.trim(),
    model: byId("model").value,
    sampler: byId("sampler").value,
    ...(fields.image.file ? framing() : {}),
    ...Object.fromEntries(NUMBERS.map((name) => [name, byId(name).value])),
    image: fields.image.file,
    control: MAPS.map((name) => fields[name].file),
    ip_adapter_image: fields.ip_adapter_image.file,
  };
  setRunning(true, "Submitting …");
  try {
    const job = await api.submit(values);
    await follow(viewer, job);
  } catch (error) {
    notify(error.message, "error");
  }
  setRunning(false);
}

/** Show a job's progress until it ends, then what it made. */
async function follow(viewer, job) {
  const cancel = () => api.cancel(job.id).catch((error) => notify(error.message, "error"));
  byId("cancel").addEventListener("click", cancel);
  const remaining = new RemainingTime();
  showProgress(job, remaining);
  try {
    const onSilence = () => (byId("status").textContent = "The server does not answer, trying again …");
    const last = await api.follow(job.id, (now) => showProgress(now, remaining), onSilence);
    if (last?.state === "done") await show(viewer, gallery.add(last));
    if (last?.notice) notify(asSentence(last.notice), "warning");
    if (last?.state === "failed") {
      gallery.add(last);
      notify(asSentence(last.error), "error");
    }
    if (last?.state === "cancelled") notify("Cancelled.");
    if (!last) notify("This job is no longer on the server.", "error");
  } finally {
    byId("cancel").removeEventListener("click", cancel);
  }
}

function showProgress(job, remaining) {
  byId("progress").value = job.steps_done / job.steps_in_all;
  const ahead = job.position ?? 0;
  const queued = ahead === 0 ? "Next in the queue" : `${ahead} job${ahead === 1 ? "" : "s"} ahead`;
  const steps = [`Step ${job.steps_done} of ${job.steps_in_all}`, remaining.words(job)].filter(Boolean);
  byId("status").textContent = job.state === "queued" ? queued : steps.join(" · ");
}

function setRunning(running, status = "") {
  byId("generate").disabled = running;
  byId("running").hidden = !running;
  byId("tile").classList.toggle("busy", running);
  byId("progress").value = 0;
  byId("status").textContent = status;
}

/** Show an object, and its files for download. */
async function show(viewer, entry) {
  const { job, result } = entry;
  asked = entry;
  try {
    const { blob, name } = await api.file(fileOf(result, ".ply").url);
    if (asked !== entry) return;
    const info = await viewer.load(blob, name);
    if (asked !== entry) return;
    byId("name").textContent = result.prompt || "from image";
    viewer.canvas.setAttribute("aria-label", `3D view of ${result.prompt || "an object from an image"}`);
    byId("facts").textContent = `${formatCount(info.splats)} · seed ${result.seed} · ${formatBytes(info.bytes)}`;
    byId("invitation").hidden = true;
    byId("caption").hidden = byId("toolbar").hidden = byId("downloads").hidden = false;
    byId("files").replaceChildren(...result.files.map(fileButton));
    byId("mesh").hidden = !fileOf(result, ".mesh.glb");
    byId("mesh").setAttribute("aria-pressed", "false");
    gallery.select(entry);
    shown = entry;
    byId("tile").scrollIntoView({ block: "nearest" });
  } catch (error) {
    notify(error.message, "error");
  }
}

function fileOf(result, kind) {
  return result.files.find(({ suffix }) => suffix === kind);
}

/** Show the shown object as its mesh, which the server makes when it is first asked for, or as its splats again. */
async function switchMesh(viewer) {
  const entry = shown;
  const button = byId("mesh");
  button.disabled = true;
  byId("tile").classList.add("busy");
  try {
    if (viewer.showsTriangles) viewer.showSplats();
    else {
      const { blob } = await api.file(fileOf(entry.result, ".mesh.glb").url);
      if (entry === shown) await viewer.showTriangles(blob);
    }
    button.setAttribute("aria-pressed", String(viewer.showsTriangles));
  } catch (error) {
    notify(error.message, "error");
  }
  button.disabled = false;
  byId("tile").classList.toggle("busy", !byId("running").hidden);
}

function showNothing(viewer) {
  viewer.clear();
  shown = asked = null;
  byId("invitation").hidden = false;
  byId("caption").hidden = byId("toolbar").hidden = byId("downloads").hidden = true;
}

function fileButton({ suffix, description, url }) {
  const click = ({ target }) => save(target, url);
  return make("button", { type: "button", title: description, click }, suffix.slice(1));
}

/** Download a file of a result; its button waits. */
async function save(button, url) {
  button.disabled = true;
  try {
    const { blob, name } = await api.file(url);
    download(blob, name);
  } catch (error) {
    notify(error.message, "error");
  }
  button.disabled = false;
}

function fillBars(viewer) {
  let turning = false;
  const turn = iconButton("turn", "Auto-rotate", () => {
    turning = !turning;
    viewer.setTurning(turning);
    turn.setAttribute("aria-pressed", String(turning));
  }, { "aria-pressed": "false" });
  const share = iconButton("share", "Save as a page to share", () => save(share, fileOf(shown.result, ".html").url));
  byId("toolbar").append(
    iconButton("reset", "Reset camera", () => viewer.resetCamera()),
    turn,
    iconButton("mesh", "Mesh or splats", () => switchMesh(viewer), { id: "mesh", "aria-pressed": "false" }),
    iconButton("compare", "Compare with another result", () => setComparing(!comparing), { id: "compare", "aria-pressed": "false" }),
    iconButton("open", "Crop and more, in the viewer", () => openViewer([shown])),
    share,
    iconButton("camera", "Save screenshot", async () => download(await viewer.screenshot(), viewer.info.name.replace(/ply$/, "png"))),
  );
  byId("actions").append(iconButton("dark", "Toggle dark mode", toggleTheme, { class: "icon-button theme-button" }));
}

/** What the server has, after the page was loaded: results, and a job under way. */
async function restore(viewer) {
  const jobs = await api.jobs();
  gallery.update(jobs);
  const done = jobs.filter(({ state }) => state === "done");
  if (done.length) await show(viewer, gallery.add(done.at(-1)));
  const lost = jobs.filter(({ state, error }) => state === "failed" && error.startsWith("the server ended"));
  if (lost.length) {
    const names = lost.map(({ prompt }) => prompt || "from image").join(", ");
    notify(`The server ended before these were done: ${names}. Click one to bring back its settings.`, "warning");
  }
  const running = jobs.findLast((job) => !isFinished(job));
  if (!running) return;
  setRunning(true);
  await follow(viewer, running);
  setRunning(false);
}

/** Results of other tabs. */
async function refresh(viewer) {
  try {
    const jobs = await api.jobs();
    gallery.update(jobs);
    if (shown && !jobs.some(({ id }) => id === shown.job.id)) showNothing(viewer);
  } catch (error) {
    console.info(error);
  }
}

/** A result was clicked: show it and how it was made, or compare it with the one that is shown. */
async function choose(viewer, entry, fields) {
  if (comparing && entry.result && shown) return compare(entry);
  await bringBack(entry, fields);
  if (entry.result) await show(viewer, entry);
  else notify(asSentence(entry.job.error), "error");
}

function compare(entry) {
  setComparing(false);
  openViewer([shown, entry]);
}

/** Leave for the viewer, with these results side by side. */
function openViewer(entries) {
  location.assign(`viewer?${entries.map(({ job, result }) => `result=${job.id}/${result.number}`).join("&")}`);
}

function setComparing(on) {
  comparing = on;
  byId("compare").setAttribute("aria-pressed", String(on));
  if (on) notify("Click the result to compare this one with.");
}

/** Fill the form with how a result was made. */
async function bringBack({ job, result }, fields) {
  const model = byId("model");
  if ([...model.options].some(({ value }) => value === job.model)) {
    model.value = job.model;
    model.dispatchEvent(new Event("change"));
  }
  byId("prompt").value = (result ?? job).prompt;
  byId("negative-prompt").value = job.negative_prompt;
  const own = ownNumbers(CONDITIONS.some((name) => name in job.images));
  for (const name of DEFAULTED) byId(name).value = job[name] === own[name] ? "" : job[name];
  byId("sampler").value = job.sampler ?? "";
  byId("seed").value = result?.seed ?? job.seed;
  lockSeed(true);
  await bringBackImages(job, fields);
}

/** The images of a job, which are cut out already. */
async function bringBackImages(job, fields) {
  for (const field of Object.values(fields)) field.clear();
  try {
    for (const [name, url] of Object.entries(job.images)) {
      if (!fields[name].available) continue;
      const { blob } = await api.file(url);
      if (name === "image") [byId("cutout").value, byId("keep-framing").checked, byId("border").value] = ["none", false, ""];
      await fields[name].set(new File([blob], `${name}.png`, { type: blob.type }));
    }
  } catch (error) {
    notify(error.message, "error");
  }
}

async function remove(viewer, job) {
  try {
    await api.cancel(job.id);
    gallery.remove(job.id);
    if ((asked ?? shown)?.job.id === job.id) showNothing(viewer);
  } catch (error) {
    notify(error.message, "error");
  }
}

/** An image that was dropped beside the fields for images. */
function takeDropped([file], fields) {
  const model = byId("model").value;
  const field = Object.values(fields).find(({ available }) => available);
  if (!file) return;
  if (!field) notify(`${model} takes text only, so it has no use for ${file.name}.`, "error");
  else if (!IMAGE_TYPES.includes(file.type)) notify(`${file.name} is not an image that ${model} takes: PNG, JPEG or WebP.`, "error");
  else field.set(file);
}

/** Keep `data-state` of the page: "ready" when nothing is running and the object is drawn. */
function watch(viewer) {
  const ready = byId("running").hidden && viewer.settled && gallery.settled;
  root.dataset.state = ready ? "ready" : "busy";
  setTimeout(() => watch(viewer), 100);
}
