// Elements, made in one line.
import { icon } from "./icons.js";

/**
 * @param tag name of the element
 * @param attributes set on it; a function becomes a listener of that event, false or undefined is left out
 * @param children elements and texts
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A button with an icon; `label` is its name and, with its shortcut, its tooltip. */
export function iconButton(name, label, onClick, { key, ...attributes } = {}) {
  return make(
    "button",
    {
      type: "button", class: "icon-button", "aria-label": label, title: key ? `${label} (${key})` : label,
      click: onClick, ...attributes,
    },
    icon(name),
  );
}

/** Hand a file to the person's downloads. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
