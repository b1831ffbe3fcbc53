/** Builds the static page into page/: bundles, ONNX Runtime's files as they are, and the licences of what is inside. */

import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { build } from "esbuild";

const OUT = "page";
const PARTIAL = "page.partial";
const RUNTIME = "node_modules/onnxruntime-web/dist";
const COPIED = [
  ...["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"].flatMap((name) => [`${name}.mjs`, `${name}.wasm`]).map((name) => join(RUNTIME, name)),
  "src/page/index.html",
  "src/page/page.css",
];

await rm(PARTIAL, { recursive: true, force: true });
await mkdir(PARTIAL);
const how = { outdir: PARTIAL, bundle: true, minify: true, target: "es2022", legalComments: "none", metafile: true, logLevel: "warning" };
const { metafile } = await build({
  ...how,
  entryPoints: { page: "src/page/page.ts", "worker-wasm": "src/worker/wasm.ts", "worker-webgpu": "src/worker/webgpu.ts" },
  format: "esm",
  conditions: ["onnxruntime-web-use-extern-wasm"],
});
// A page from disk has no origin, and its worker cannot import: one script that holds ONNX Runtime's loader too.
await build({
  ...how,
  entryPoints: { "worker-single": "src/worker/wasm.ts" },
  format: "iife",
  define: { "import.meta.url": "self.location.href" },
});
for (const path of COPIED) await copyFile(path, join(PARTIAL, basename(path)));
await writeFile(join(PARTIAL, "THIRD_PARTY.txt"), await licences(Object.keys(metafile.inputs)));
await rm(OUT, { recursive: true, force: true });
await rename(PARTIAL, OUT);
const sizes = await Promise.all((await readdir(OUT)).map(async (name) => (await stat(join(OUT, name))).size));
console.log(`${OUT}: ${(sizes.reduce((a, b) => a + b) / 1e6).toFixed(1)} MB`);

/** Name, version and licence of every package that a bundled file comes from; licenses/ has those that npm's packages lack. */
async function licences(inputs) {
  const folders = new Set(inputs.map((file) => file.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//)?.[1]).filter(Boolean));
  const parts = [];
  for (const folder of [...folders].sort()) {
    const { name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const inside = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const file = inside ? join(folder, inside) : join("licenses", `${basename(folder)}.txt`);
    parts.push(`${name} ${version}\n\n${(await readFile(file, "utf8")).trim()}\n`);
  }
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}
