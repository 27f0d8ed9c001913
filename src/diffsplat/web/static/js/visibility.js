// Hides splats below an opacity or outside a box, on the graphics processor.
import { dyno } from "./vendor.js";

const FAR = 1e9;

/** A modifier for `SplatMesh`, with the opacity and the box (in the file's axes) that it compares with. */
export class VisibilityFilter {
  #threshold = dyno.dynoFloat(0);
  #lower = [-FAR, -FAR, -FAR].map((value) => dyno.dynoFloat(value));
  #upper = [FAR, FAR, FAR].map((value) => dyno.dynoFloat(value));

  /** What a `SplatMesh` takes as its `objectModifier`. */
  modifier = dyno.dynoBlock({ gsplat: dyno.Gsplat }, { gsplat: dyno.Gsplat }, ({ gsplat }) => {
    const { opacity, center } = dyno.splitGsplat(gsplat).outputs;
    const { x, y, z } = dyno.split(center).outputs;
    let shown = dyno.mul(opacity, dyno.step(this.#threshold, opacity));
    [x, y, z].forEach((value, axis) => {
      shown = dyno.mul(shown, dyno.mul(dyno.step(this.#lower[axis], value), dyno.step(value, this.#upper[axis])));
    });
    return { gsplat: dyno.combineGsplat({ gsplat, opacity: shown }) };
  });

  get threshold() {
    return this.#threshold.value;
  }

  set threshold(opacity) {
    this.#threshold.value = opacity;
  }

  /** @param box `[[least, most], …]` of x, y and z */
  set box(box) {
    box.forEach(([least, most], axis) => {
      this.#lower[axis].value = Math.max(least, -FAR);
      this.#upper[axis].value = Math.min(most, FAR);
    });
  }

  /** Whether a splat is shown. */
  shows([x, y, z], opacity) {
    const inside = [x, y, z].every((value, axis) => value >= this.#lower[axis].value && value <= this.#upper[axis].value);
    return inside && opacity >= this.threshold;
  }
}
