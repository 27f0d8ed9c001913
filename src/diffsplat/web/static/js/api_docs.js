// The API's documentation: its forms send their requests and show the answers.
import { download, make } from "./dom.js";

const TOKEN_KEY = "diffsplat-token";
const token = document.querySelector("#token input");
token.value = sessionStorage.getItem(TOKEN_KEY) ?? "";
token.addEventListener("input", () => sessionStorage.setItem(TOKEN_KEY, token.value));
const { token_needed: needed } = await (await fetch("health")).json();
token.parentElement.hidden = !needed;

for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [button, output] = [form.querySelector("button"), form.querySelector("output")];
    button.disabled = true;
    try {
      await send(form, output);
    } catch (error) {
      output.replaceChildren(make("pre", {}, error.message));
    }
    button.disabled = false;
  });
}

async function send(form, output) {
  const { method, path } = form.dataset;
  const values = new FormData(form);
  const filled = path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(values.get(name)));
  const headers = token.value ? { authorization: `Bearer ${token.value}` } : {};
  const body = values.get("body") ?? undefined;
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(`..${filled}`, { method, headers, body });
  const type = response.headers.get("content-type") ?? "";
  const text = make("pre", {}, `${response.status} ${type}\n`);
  output.replaceChildren(text);
  if (type.includes("json")) text.append(JSON.stringify(await response.json(), null, 2));
  else if (type.startsWith("text/event-stream")) await append(response, text);
  else await showFile(await response.blob(), filled.split("/").pop(), output);
}

/** Show the events of a stream as they come. */
async function append(response, text) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) text.append(part.value);
}

async function showFile(blob, name, output) {
  output.append(make("button", { type: "button", click: () => download(blob, name) }, `Save ${name}, ${blob.size} bytes`));
  if (!blob.type.startsWith("image/")) return;
  const image = make("img", { alt: name, src: URL.createObjectURL(blob) });
  output.append(make("p", {}, image));
  await image.decode();
}
