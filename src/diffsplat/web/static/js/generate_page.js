// The page of `diffsplat serve`: from a prompt or a picture to an object on the screen.
import { Api, asSentence, isFinished } from "./api.js";
import { download, iconButton, make } from "./dom.js";
import { formatBytes, formatCount } from "./files.js";
import { Gallery } from "./gallery.js";
import { createNotices } from "./notices.js";
import { PictureField } from "./picture_field.js";
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
else notify("This browser offers no WebGL 2, which the objects are drawn with.", "error");

async function start() {
  const viewer = createViewer(byId("surface"));
  startTheme(() => viewer.setBackground(getComputedStyle(root).getPropertyValue("--stage").trim()));
  const fields = {
    image: pictureField("image", "Picture of the object", (file) => api.cutOut(file)),
    control: pictureField("control", "Control map", async (file) => file),
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
    await bringBack(viewer);
  } catch (error) {
    notify(error.message, "error");
  }
  watch(viewer);
}

function pictureField(id, label, preview) {
  return new PictureField(byId(id), { label: `${label}: drop or choose`, preview, onError: (sentence) => notify(sentence, "error") });
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
    byId("note").textContent = asSentence(model.takes.reasons.image ?? "");
  };
  select.addEventListener("change", choose);
  choose();
  const dice = iconButton("reset", "Another seed", () => (byId("seed").value = Math.floor(Math.random() * LARGEST_SEED)));
  byId("seed").after(dice);
}

async function generate(viewer, fields) {
  const prompt = byId("prompt").value.trim();
  if (!prompt && !fields.image.file) {
    byId("prompt").focus();
    notify(fields.image.available ? "Describe an object, or give a picture of it." : "Describe an object first.", "error");
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
  setRunning(true, "Asking …");
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
    if (last?.state === "failed") notify(asSentence(last.error), "error");
    if (last?.state === "cancelled") notify("Cancelled.");
    if (!last) notify("The server no longer has this job.", "error");
  } finally {
    byId("cancel").removeEventListener("click", cancel);
  }
}

function showProgress(job) {
  byId("progress").value = job.steps_done / job.steps_in_all;
  const before = job.position ?? 0;
  const places = before === 0 ? "Next in the queue" : `${before} job${before === 1 ? "" : "s"} before this one`;
  const steps = `Step ${job.steps_done} of ${job.steps_in_all}`;
  byId("status").textContent = job.state === "queued" ? places : steps;
}

function setRunning(running, status = "") {
  byId("generate").disabled = running;
  byId("running").hidden = !running;
  byId("tile").classList.toggle("busy", running);
  byId("progress").value = 0;
  byId("status").textContent = status;
}

/** Put an object on the stage, and its files up for download. */
async function show(viewer, entry) {
  const { job, result } = entry;
  const ply = result.files.find((file) => file.suffix === ".ply");
  try {
    const { blob, name } = await api.file(ply.url);
    const info = await viewer.load(blob, name);
    byId("name").textContent = job.prompt || "picture";
    byId("facts").textContent = `${formatCount(info.splats)} · seed ${result.seed} · ${formatBytes(info.bytes)}`;
    byId("invitation").hidden = true;
    byId("caption").hidden = byId("toolbar").hidden = byId("take-away").hidden = false;
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
  const turn = iconButton("turn", "Turn by itself", () => {
    turning = !turning;
    viewer.setTurning(turning);
    turn.setAttribute("aria-pressed", String(turning));
  }, { "aria-pressed": "false" });
  byId("toolbar").append(
    iconButton("reset", "Reset the camera", () => viewer.resetCamera()),
    turn,
    iconButton("camera", "Save a picture", async () => download(await viewer.screenshot(), `${byId("name").textContent}.png`)),
  );
  byId("actions").append(iconButton("dark", "Light or dark", toggleTheme, { class: "icon-button theme-button" }));
}

/** Objects of this session that the server still has, after the page was loaded anew. */
async function bringBack(viewer) {
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
      make("h2", {}, "This server asks for its token"),
      input,
      make("button", { class: "primary", value: "use" }, "Go on")));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Keep `data-state` of the page: "ready" when nothing is under way and the object is drawn. */
function watch(viewer) {
  const ready = byId("running").hidden && viewer.settled && gallery.settled;
  root.dataset.state = ready ? "ready" : "busy";
  setTimeout(() => watch(viewer), 100);
}
