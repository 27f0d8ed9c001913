// How large an object is, whatever stray splats fly around it.
const SAMPLES = 20000;
const VISIBLE = 0.1;
const INSIDE = 0.98;

/**
 * Centre and radius of a ball around nearly all visible splats.
 *
 * @param splats a spark `PackedSplats`
 * @returns {{center: number[], radius: number}}
 */
export function ballAround(splats) {
  const points = sampledCenters(splats);
  const center = [0, 1, 2].map((axis) => {
    const sorted = points.map((point) => point[axis]).sort((a, b) => a - b);
    return (quantile(sorted, 1 - INSIDE) + quantile(sorted, INSIDE)) / 2;
  });
  const distances = points.map((point) => Math.hypot(...point.map((value, axis) => value - center[axis])));
  distances.sort((a, b) => a - b);
  return { center, radius: Math.max(quantile(distances, INSIDE), 1e-6) };
}

function sampledCenters(splats) {
  const step = Math.max(1, Math.floor(splats.numSplats / SAMPLES));
  const visible = [];
  const all = [];
  for (let index = 0; index < splats.numSplats; index += step) {
    const { center, opacity } = splats.getSplat(index);
    const point = center.toArray();
    if (!point.every(Number.isFinite)) continue;
    all.push(point);
    if (opacity >= VISIBLE) visible.push(point);
  }
  const points = visible.length ? visible : all;
  return points.length ? points : [[0, 0, 0]];
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
