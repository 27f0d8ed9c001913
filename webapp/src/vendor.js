// What the pages use of three and spark. Bundled once into src/diffsplat/web/static/vendor.js; see build.mjs.
export {
  Color,
  Matrix4,
  MathUtils,
  MeshBasicMaterial,
  PerspectiveCamera,
  Quaternion,
  Scene,
  Sphere,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
export { PackedSplats, SparkRenderer, SplatMesh, dyno } from "@sparkjsdev/spark";
