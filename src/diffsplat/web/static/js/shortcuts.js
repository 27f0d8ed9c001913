// Keys, and the dialog that lists them.
import { iconButton, make } from "./dom.js";

/**
 * @typedef {{keys: string[], shown: string, what: string, run: (event: KeyboardEvent) => void}} Shortcut
 * `keys` are values of `KeyboardEvent.key`, `shown` how the help writes them, with a space between keys.
 */

/** Listen for `shortcuts` (a list of Shortcut), except where a person is typing. */
export function listen(shortcuts) {
  const byKey = new Map(shortcuts.flatMap((shortcut) => shortcut.keys.map((key) => [key, shortcut])));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    const shortcut = byKey.get(event.key) ?? byKey.get(event.key.toLowerCase());
    if (!shortcut) return;
    if (event.key === " " && event.target instanceof HTMLButtonElement) return;
    event.preventDefault();
    shortcut.run(event);
  });
}

/** A function that opens the list of keys and gestures. */
export function createHelp(shortcuts, gestures) {
  const row = ([keys, what]) => [
    make("dt", {}, ...keys.map((key) => make("kbd", {}, key))), make("dd", {}, what),
  ];
  const section = (title, rows) => make("section", {}, make("h3", {}, title), make("dl", {}, ...rows.flatMap(row)));
  const close = iconButton("close", "Close help", () => dialog.close());
  const dialog = make(
    "dialog",
    { class: "help", "aria-label": "Keyboard and gestures", click: (event) => event.target === dialog && dialog.close() },
    make("div", { class: "help-body", tabindex: "-1", autofocus: true },
      make("header", {}, make("h2", {}, "Keyboard and gestures"), close),
      section("Keys", shortcuts.map(({ shown, what }) => [shown.split(" "), what])),
      ...Object.entries(gestures).map(([title, rows]) => section(title, rows.map(([name, what]) => [[name], what]))),
    ),
  );
  document.body.append(dialog);
  return () => (dialog.open ? dialog.close() : dialog.showModal());
}

function isTyping(target) {
  return target instanceof HTMLElement
    && (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox])"));
}
