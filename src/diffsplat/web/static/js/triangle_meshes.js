// Triangle meshes of glTF files, in the colours that the splats have: their light is in the texture.
import { GLTFLoader, MeshBasicMaterial } from "./vendor.js";

/**
 * @param bytes ArrayBuffer of a `.glb`
 * @returns {Promise<Object3D>} to be freed by `disposeOf`
 * @throws {Error} one sentence, when it cannot be read
 */
export async function readGlb(bytes) {
  let scene;
  try {
    ({ scene } = await new GLTFLoader().parseAsync(bytes, ""));
  } catch (cause) {
    throw new Error("The mesh of this object is not a readable .glb file.", { cause });
  }
  scene.traverse((part) => {
    if (!part.isMesh) return;
    const { map, color, vertexColors, side } = part.material;
    part.material.dispose();
    part.material = new MeshBasicMaterial({ map, color, vertexColors, side });
  });
  return scene;
}

/** Free what the graphics processor holds of a mesh. */
export function disposeOf(scene) {
  scene.traverse(({ geometry, material }) => {
    geometry?.dispose();
    material?.map?.dispose();
    material?.dispose();
  });
}
