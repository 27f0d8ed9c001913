// Files of the splats that are shown: the rows of a .ply as they are, or rows made of what the viewer holds.
const END = "end_header\n";
const HEADER_BYTES = 16384;
const SH_BAND_0 = 0.28209479177387814;
const FIELDS = [
  "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
];

/**
 * The rows of a .ply of the original layout that are kept, byte for byte.
 *
 * @param bytes an ArrayBuffer
 * @param keeps `(center, opacity) => boolean`, in the file's axes
 * @returns {Blob | null} null for files of another layout
 */
export function filteredPly(bytes, keeps) {
  const text = new TextDecoder("latin1").decode(bytes.slice(0, HEADER_BYTES));
  const end = text.indexOf(END);
  const header = text.slice(0, end);
  const [, count] = /^element vertex (\d+)$/m.exec(header) ?? [];
  const names = [...header.matchAll(/^property float (\w+)$/gm)].map(([, name]) => name);
  const plain = end > 0 && count && header.includes("format binary_little_endian")
    && header.match(/^(element|property) /gm).length === names.length + 1
    && ["x", "y", "z", "opacity"].every((name) => names.includes(name));
  if (!plain) return null;
  const start = end + END.length;
  const rows = new DataView(bytes, start);
  const stride = 4 * names.length;
  const kept = [];
  for (let row = 0; row < Number(count); row += 1) {
    const value = (name) => rows.getFloat32(row * stride + 4 * names.indexOf(name), true);
    const opacity = 1 / (1 + Math.exp(-value("opacity")));
    if (keeps(["x", "y", "z"].map(value), opacity)) kept.push(bytes.slice(start + row * stride, start + (row + 1) * stride));
  }
  return new Blob([header.replace(/^element vertex \d+$/m, `element vertex ${kept.length}`), END, ...kept]);
}

/**
 * A .ply of the splats of a spark `PackedSplats` that are kept, as precise as the viewer holds them.
 *
 * @param up axis that points up: "y", "-y" or "z"
 */
export function plyOf(splats, keeps, up) {
  const rows = [];
  for (let index = 0; index < splats.numSplats; index += 1) {
    const { center, scales, quaternion, opacity, color } = splats.getSplat(index);
    if (keeps(center.toArray(), opacity)) rows.push(rowOf(center, scales, quaternion, opacity, color));
  }
  const header = [
    "ply", "format binary_little_endian 1.0", `comment up axis ${up.length === 1 ? `+${up}` : up}, right-handed`,
    `element vertex ${rows.length}`, ...FIELDS.map((name) => `property float ${name}`),
  ];
  return new Blob([`${header.join("\n")}\n`, END, ...rows]);
}

function rowOf(center, scales, quaternion, opacity, { r, g, b }) {
  const clamped = Math.min(1 - 1e-6, Math.max(1e-6, opacity));
  return new Float32Array([
    ...center.toArray(), ...[r, g, b].map((value) => (value - 0.5) / SH_BAND_0), Math.log(clamped / (1 - clamped)),
    ...scales.toArray().map((value) => Math.log(Math.max(value, 1e-12))), quaternion.w, quaternion.x, quaternion.y, quaternion.z,
  ]);
}
