// Hides splats below an opacity, on the graphics processor.
import { dyno } from "./vendor.js";

/** `{modifier, threshold}`: a modifier for `SplatMesh` and the value it compares with, 0..1. */
export function opacityFilter() {
  const threshold = dyno.dynoFloat(0);
  const modifier = dyno.dynoBlock({ gsplat: dyno.Gsplat }, { gsplat: dyno.Gsplat }, ({ gsplat }) => {
    const { opacity } = dyno.splitGsplat(gsplat).outputs;
    const shown = dyno.select(
      dyno.greaterThanEqual(opacity, threshold), opacity, dyno.dynoConst("float", 0),
    );
    return { gsplat: dyno.combineGsplat({ gsplat, opacity: shown }) };
  });
  return { modifier, threshold };
}
