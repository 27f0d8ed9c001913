// Bundles the libraries of the pages: `npm ci && npm run build`, then commit what changed under
// src/diffsplat/web/static. Our own modules there are plain and need no build.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "src", "diffsplat", "web", "static");

// In the bundle are: three, spark, and fflate, which spark carries.
const packages = ["three", "@sparkjsdev/spark", "fflate"];

/** Spark carries a worker as text, whose last line names a source map that nobody has. */
const withoutSourceMaps = {
  name: "without-source-maps",
  setup({ onLoad }) {
    onLoad({ filter: /spark\.module\.js$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      return { contents: text.replaceAll(/(\/\/# sourceMappingURL=)\S+?\.map/g, ""), loader: "js" };
    });
  },
};

const lock = JSON.parse(await readFile(join(here, "package-lock.json"), "utf8")).packages;
const licences = await Promise.all(packages.map(licence));
await mkdir(join(target, "js"), { recursive: true });
await build({
  entryPoints: [join(here, "src", "vendor.js")],
  outfile: join(target, "js", "vendor.js"),
  banner: { js: "/* three, spark, fflate: MIT licence, see LICENSES.txt */" },
  bundle: true,
  format: "esm",
  minify: true,
  legalComments: "none",
  target: "es2022",
  plugins: [withoutSourceMaps],
  logLevel: "info",
});
await writeFile(join(target, "LICENSES.txt"), licences.join("\n\n"));
await writeFile(join(target, "sbom.cdx.json"), `${JSON.stringify(billOfMaterials(), null, 2)}\n`);

/** What the bundle consists of, in the form of CycloneDX. */
function billOfMaterials() {
  const components = packages.map((name) => {
    const { version, integrity, license } = lock[`node_modules/${name}`];
    const hash = Buffer.from(integrity.replace("sha512-", ""), "base64").toString("hex");
    return {
      type: "library", name, version, purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      licenses: [{ license: { id: license } }], hashes: [{ alg: "SHA-512", content: hash }],
    };
  });
  return { bomFormat: "CycloneDX", specVersion: "1.6", version: 1, components };
}

async function licence(name) {
  const folder = join(here, "node_modules", name);
  const { version, repository, homepage } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const origin = homepage ?? repository?.url ?? repository;
  const text = (await readFile(join(folder, "LICENSE"), "utf8")).trim();
  return `${name} ${version}, ${origin}\n${"-".repeat(72)}\n${text}\n`;
}
