// The page of `diffsplat serve`: generates an object from a prompt or an image and shows it.
import { Api, asSentence, isFinished } from "./api.js";
import { download, iconButton, make } from "./dom.js";
import { formatBytes, formatCount } from "./files.js";
import { Gallery } from "./gallery.js";
import { createNotices } from "./notices.js";
import { ImageField } from "./image_field.js";
import { startTheme, toggleTheme } from "./theme.js";
import { createViewer } from "./viewer.js";

const LARGEST_SEED = 2 ** 32;
const NUMBERS = ["seed", "steps", "guidance", "count"];

const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const notify = createNotices(document.body);
const api = new Api(askToken);
const gallery = new Gallery(byId("gallery"), api);
root.dataset.state = "busy";

if (document.createElement("canvas").getContext("webgl2")) start();
else notify("This browser does not support WebGL 2, which this page needs.", "error");

async function start() {
  const viewer = createViewer(byId("surface"));
  startTheme(() => viewer.setBackground(getComputedStyle(root).getPropertyValue("--stage").trim()));
  const fields = {
    image: imageField("image", "Image of the object", (file) => api.cutOut(file)),
    control: imageField("control", "Control map", async (file) => file),
  };
  fillBars(viewer);
  gallery.addEventListener("choose", ({ detail }) => show(viewer, detail));
  try {
    await api.open();
    const catalogue = await api.catalogue();
    fillForm(catalogue, fields);
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      generate(viewer, fields);
    });
    await restoreSession(viewer);
  } catch (error) {
    notify(error.message, "error");
  }
  watch(viewer);
}

function imageField(id, label, preview) {
  return new ImageField(byId(id), { label: `${label}: drop or browse`, preview, onError: (sentence) => notify(sentence, "error") });
}

function fillForm({ models, limits }, fields) {
  const select = byId("model");
  select.append(...models.map(({ name }) => make("option", { value: name }, name)));
  byId("steps").max = limits.steps;
  byId("count").max = limits.count;
  const choose = () => {
    const model = models.find(({ name }) => name === select.value);
    byId("steps").value = model.steps;
    byId("guidance").value = model.guidance;
    fields.image.available = model.takes.image;
    fields.control.available = model.takes.control !== null;
    byId("note").hidden = fields.image.available || fields.control.available;
    byId("note").textContent = `${model.name} takes text only.`;
    byId("examples").hidden = model.examples.length === 0;
    byId("examples").replaceChildren(...model.examples.map(exampleButton));
  };
  select.addEventListener("change", choose);
  choose();
  const dice = iconButton("dice", "Random seed", () => (byId("seed").value = Math.floor(Math.random() * LARGEST_SEED)));
  byId("seed").after(dice);
}

function exampleButton(prompt) {
  return make("button", { type: "button", click: () => {
    byId("prompt").value = prompt;
    byId("form").requestSubmit();
  } }, prompt);
}

async function generate(viewer, fields) {
  const prompt = byId("prompt").value.trim();
  if (!prompt && !fields.image.file) {
    byId("prompt").focus();
    notify(fields.image.available ? "Enter a prompt or add an image." : "Enter a prompt first.", "error");
    return;
  }
  const values = {
    prompt,
    negative_prompt: byId("negative-prompt").value.trim(),
    model: byId("model").value,
    ...Object.fromEntries(NUMBERS.map((name) => [name, byId(name).value])),
    image: fields.image.file,
    control: fields.control.file,
  };
  setRunning(true, "Submitting …");
  try {
    const job = await api.submit(values);
    gallery.remember(job.id);
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
  showProgress(job);
  try {
    const last = await api.follow(job.id, showProgress);
    if (last?.state === "done") await show(viewer, gallery.add(last));
    else gallery.forget(job.id);
    if (last?.notice) notify(asSentence(last.notice), "warning");
    if (last?.state === "failed") notify(asSentence(last.error), "error");
    if (last?.state === "cancelled") notify("Cancelled.");
    if (!last) notify("This job is no longer on the server.", "error");
  } finally {
    byId("cancel").removeEventListener("click", cancel);
  }
}

function showProgress(job) {
  byId("progress").value = job.steps_done / job.steps_in_all;
  const ahead = job.position ?? 0;
  const queued = ahead === 0 ? "Next in the queue" : `${ahead} job${ahead === 1 ? "" : "s"} ahead`;
  const steps = `Step ${job.steps_done} of ${job.steps_in_all}`;
  byId("status").textContent = job.state === "queued" ? queued : steps;
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
  const ply = result.files.find((file) => file.suffix === ".ply");
  try {
    const { blob, name } = await api.file(ply.url);
    const info = await viewer.load(blob, name);
    byId("name").textContent = job.prompt || "from image";
    byId("facts").textContent = `${formatCount(info.splats)} · seed ${result.seed} · ${formatBytes(info.bytes)}`;
    byId("invitation").hidden = true;
    byId("caption").hidden = byId("toolbar").hidden = byId("downloads").hidden = false;
    byId("files").replaceChildren(...result.files.map(fileButton));
    gallery.select(entry);
  } catch (error) {
    notify(error.message, "error");
  }
}

function fileButton({ suffix, description, url }) {
  const button = make("button", { type: "button", title: description, click: async () => {
    button.disabled = true;
    try {
      const { blob, name } = await api.file(url);
      download(blob, name);
    } catch (error) {
      notify(error.message, "error");
    }
    button.disabled = false;
  } }, suffix.slice(1));
  return button;
}

function fillBars(viewer) {
  let turning = false;
  const turn = iconButton("turn", "Auto-rotate", () => {
    turning = !turning;
    viewer.setTurning(turning);
    turn.setAttribute("aria-pressed", String(turning));
  }, { "aria-pressed": "false" });
  byId("toolbar").append(
    iconButton("reset", "Reset camera", () => viewer.resetCamera()),
    turn,
    iconButton("camera", "Save screenshot", async () => download(await viewer.screenshot(), `${byId("name").textContent}.png`)),
  );
  byId("actions").append(iconButton("dark", "Toggle dark mode", toggleTheme, { class: "icon-button theme-button" }));
}

/** Objects of this session that the server still has, after the page was reloaded. */
async function restoreSession(viewer) {
  for (const id of gallery.remembered) {
    const job = await api.job(id);
    if (job?.state === "done") await show(viewer, gallery.add(job));
    else if (job && !isFinished(job)) {
      setRunning(true);
      await follow(viewer, job);
      setRunning(false);
    } else gallery.forget(id);
  }
}

function askToken() {
  return new Promise((resolve) => {
    const input = make("input", { type: "password", name: "token", required: true, "aria-label": "Token", autocomplete: "current-password" });
    const dialog = make("dialog", { class: "ask", close: () => {
      dialog.remove();
      resolve(dialog.returnValue === "use" ? input.value : null);
    } },
    make("form", { method: "dialog" },
      make("h2", {}, "This server requires a token"),
      input,
      make("button", { class: "primary", value: "use" }, "Continue")));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Keep `data-state` of the page: "ready" when nothing is running and the object is drawn. */
function watch(viewer) {
  const ready = byId("running").hidden && viewer.settled && gallery.settled;
  root.dataset.state = ready ? "ready" : "busy";
  setTimeout(() => watch(viewer), 100);
}
