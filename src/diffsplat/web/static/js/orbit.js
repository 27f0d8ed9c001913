// Poses of cameras around an object, in the convention of diffsplat: azimuth 0 is +Z, 90 is +X; elevation in
// degrees above the horizon; focal length divided by the shorter side of the image.
import { MathUtils, Vector3 } from "./vendor.js";

export const DEFAULT_FOCAL = 1422.222 / 1024;
export const DEFAULT_ELEVATION = 10;

/** Position of a camera: `{azimuth, elevation, radius, target: [x, y, z]}`. */
export function positionOf({ azimuth, elevation, radius, target }) {
  const around = MathUtils.degToRad(azimuth);
  const above = MathUtils.degToRad(elevation);
  const flat = Math.cos(above);
  return new Vector3(flat * Math.sin(around), Math.sin(above), flat * Math.cos(around))
    .multiplyScalar(radius)
    .add(new Vector3(...target));
}

/** The pose of a camera at `position` that looks at `target`; the inverse of `positionOf`. */
export function poseOf(position, target) {
  const offset = position.clone().sub(target);
  const radius = offset.length();
  return {
    azimuth: MathUtils.radToDeg(Math.atan2(offset.x, offset.z)),
    elevation: MathUtils.radToDeg(Math.asin(MathUtils.clamp(offset.y / radius, -1, 1))),
    radius,
    target: target.toArray(),
  };
}

/** Vertical angle of view in degrees of an image of this shape. */
export function verticalFov(focal, width, height) {
  return MathUtils.radToDeg(2 * Math.atan((0.5 / focal) * Math.max(1, height / width)));
}

/** Distance from which a ball of this radius fills most of the shorter side. */
export function fittingDistance(ballRadius, focal) {
  return (1.25 * ballRadius) / Math.sin(Math.atan(0.5 / focal));
}
