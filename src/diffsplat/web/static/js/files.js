// Names, sizes and axes of splat files.

/** Axes that may point up in a file. */
export const UP_AXES = ["y", "-y", "z"];

/** Suffixes that the viewer reads in the browser, longest first, and the up axis of a file that names none. */
const READABLE = {
  ".compressed.ply": "-y",
  ".ply": "y",
  ".splat": "-y",
  ".ksplat": "-y",
  ".spz": "y",
  ".sog": "-y",
};

export const READABLE_SUFFIXES = Object.keys(READABLE);

const HEADER_BYTES = 4096;
const UP_COMMENT = /^comment up axis ([+-])([yz]), right-handed$/m;

/** Throw one sentence for a name that the viewer cannot read. */
export function requireReadable(name) {
  if (suffixOf(name) === undefined) {
    const known = READABLE_SUFFIXES.join(", ");
    throw new Error(`${name} is not a supported file. Supported: ${known}.`);
  }
}

/** Up axis of a file: what its header names, or else the convention of its format. */
export function upAxisOf(bytes, name) {
  const suffix = suffixOf(name);
  if (suffix?.endsWith(".ply")) {
    const header = new TextDecoder("latin1").decode(bytes.slice(0, HEADER_BYTES)).split("end_header")[0];
    const found = UP_COMMENT.exec(header);
    if (found) return found[1] === "-" ? `-${found[2]}` : found[2];
  }
  return READABLE[suffix] ?? "y";
}

/** `1.2 MB`. */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  const power = Math.min(units.length, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power - 1]}`;
}

/** `21,525 splats`. */
export function formatCount(count) {
  return `${count.toLocaleString("en")} splat${count === 1 ? "" : "s"}`;
}

function suffixOf(name) {
  const lower = name.toLowerCase();
  return READABLE_SUFFIXES.find((suffix) => lower.endsWith(suffix));
}
