// Files that a person drops on the page or picks in a dialog.
import { make } from "./dom.js";

/** Call `onFiles(files)` with what is dropped anywhere on the page, unless an element of it has taken them. */
export function acceptDrops(onFiles, words = "Drop to open") {
  const veil = make("div", { class: "drop-veil", hidden: true }, make("p", {}, words));
  document.body.append(veil);
  let depth = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (step) => {
    depth = Math.max(0, depth + step);
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && show(1));
  addEventListener("dragleave", (event) => carriesFiles(event) && show(-1));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    const taken = event.defaultPrevented;
    event.preventDefault();
    show(-depth);
    if (!taken) onFiles([...event.dataTransfer.files]);
  });
}

/** Open the dialog for files. */
export function pickFiles(suffixes, onFiles) {
  const input = make("input", {
    type: "file", multiple: true, accept: suffixes.join(","), change: () => onFiles([...input.files]),
  });
  input.click();
}
