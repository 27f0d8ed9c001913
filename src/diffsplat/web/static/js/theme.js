// Light and dark: what the system prefers, until a person chooses.
const KEY = "diffsplat-theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

/** "light" or "dark". */
export function theme() {
  return document.documentElement.dataset.theme;
}

/** Set the theme of the page; `listener(theme)` is called for this and for every later one. */
export function startTheme(listener, wanted = null) {
  listeners.add(listener);
  apply(wanted ?? stored() ?? preferred());
  prefersDark.addEventListener("change", () => {
    if (!wanted && !stored()) apply(preferred());
  });
}

/** Change to the other one, and remember it. */
export function toggleTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // Without storage, which some browsers refuse, the choice holds for this page.
  }
  apply(next);
}

function apply(name) {
  document.documentElement.dataset.theme = name;
  for (const listener of listeners) listener(name);
}

function preferred() {
  return prefersDark.matches ? "dark" : "light";
}

function stored() {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : null;
  } catch {
    return null;
  }
}
