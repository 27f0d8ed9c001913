// Options in the address of a page: ?azimuth=30&elevation=10&radius=1.4&focal=1.38889&target=0,0,0
// &background=ffffff&up=-y&opacity=0.1&theme=dark&bare=1, and &result=JOB/NUMBER for each generated object to show
import { UP_AXES } from "./files.js";

const CAMERA_NUMBERS = ["azimuth", "elevation", "radius", "focal"];

/** `{camera, background, up, opacity, theme, bare, results}`; options that are absent or invalid are left out. */
export function pageOptions(search) {
  const asked = new URLSearchParams(search);
  const options = { camera: {}, bare: asked.get("bare") === "1" };
  options.results = asked.getAll("result").flatMap((text) => {
    const [, job, digits] = /^([\w-]+)\/(\d+)$/.exec(text) ?? [];
    return job ? [{ job, number: Number(digits) }] : [];
  });
  for (const name of CAMERA_NUMBERS) {
    const value = number(asked.get(name));
    if (value !== null) options.camera[name] = value;
  }
  const fov = number(asked.get("fov"));
  if (fov > 0 && fov < 180) options.camera.focal = 0.5 / Math.tan((fov * Math.PI) / 360);
  const target = asked.get("target")?.split(",").map(number);
  if (target?.length === 3 && !target.includes(null)) options.camera.target = target;
  for (const name of ["radius", "focal"]) if (!(options.camera[name] > 0)) delete options.camera[name];
  const background = asked.get("background");
  if (background === "transparent") options.background = background;
  else if (/^[0-9a-f]{6}$/i.test(background ?? "")) options.background = `#${background.toLowerCase()}`;
  if (UP_AXES.includes(asked.get("up"))) options.up = asked.get("up");
  const opacity = number(asked.get("opacity"));
  if (opacity >= 0 && opacity <= 1 && opacity !== null) options.opacity = opacity;
  if (["light", "dark"].includes(asked.get("theme"))) options.theme = asked.get("theme");
  return options;
}

function number(text) {
  const value = Number(text);
  return text === null || text === undefined || text.trim() === "" || !Number.isFinite(value) ? null : value;
}
