// Line icons, drawn on a grid of 24.
const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  background: "M12 3a9 9 0 1 0 0 18Zm0 0a9 9 0 0 1 0 18",
  camera: "M4 8h3l2-3h6l2 3h3v11H4Zm8 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z",
  close: "m6 6 12 12M18 6 6 18",
  compare: "M4 5h7v14H4ZM13 5h7v14h-7Z",
  cube: "M12 3 4 7.5v9L12 21l8-4.5v-9ZM4 7.5l8 4.5 8-4.5M12 12v9",
  dark: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5Z",
  dice: "M5 5h14v14H5ZM9 9v.1M15 9v.1M12 12v.1M9 15v.1M15 15v.1",
  expand: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  file: "M12 15V4m0 0L8 8m4-4 4 4M4 14v6h16v-6",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.1M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  light: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  locked: "M6 11h12v9H6ZM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  mesh: "M12 3 4 17h16ZM12 3 8 17M12 3l4 14M4 17l4 4h8l4-4M8 17v4M16 17v4",
  open: "M9 5H5v14h14v-4M13 5h6v6M19 5l-9 9",
  reset: "M4 4v5h5M4.6 9A8 8 0 1 1 4 13",
  settings: "M4 7h9M19 7h1M4 17h1M11 17h9M16 9.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM8 19.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
  share: "M12 15V4m0 0L8 8m4-4 4 4M6 12H4v8h16v-8h-2",
  turn: "M20 12c0 2-3.6 3.5-8 3.5S4 14 4 12s3.6-3.5 8-3.5c1.6 0 3 .2 4.3.5M13.5 6.5l3 2.5-3 2.5",
};

/** An `<svg>` element that screen readers pass over. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
