/** The worker: it checks and loads the artefact once, then reads, segments and writes one scan after another. */

import type * as Ort from "onnxruntime-web";
import { type Metadata, readMetadata } from "../network/artefact";
import { warningsFor } from "../network/ranges";
import { type Network, segment } from "../network/segment";
import { readScan, stemOf } from "../scan/read";
import { InputError, spacingOf, voxelVolumeOf, type Volume, type Voxels } from "../scan/volume";
import { LABEL_INTENT, writeNifti } from "../scan/write";
import { goldenDifference } from "./golden";
import type { FromWorker, Load, Result, Segment, ToWorker } from "./messages";

const say = (message: FromWorker, transfer: Transferable[] = []): void => self.postMessage(message, { transfer });
const now = (): number => performance.now() / 1000;

/** ort: ONNX Runtime Web as it was built for `provider`. */
export function work(ort: typeof Ort, provider: "wasm" | "webgpu"): void {
  let model: { about: Metadata; network: Network } | undefined;
  self.onmessage = async ({ data }: MessageEvent<ToWorker>): Promise<void> => {
    try {
      if (data.kind === "load") model = await load(ort, provider, data);
      else if (model) await run(model.about, model.network, data);
    } catch (error) {
      const line = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ");
      say({ kind: error instanceof InputError ? "refused" : "failed", line });
    }
  };
}

async function load(ort: typeof Ort, provider: "wasm" | "webgpu", message: Load): Promise<{ about: Metadata; network: Network }> {
  const bytes = new Uint8Array(message.model);
  const about = readMetadata(bytes, message.name);
  if (message.loader !== null) ort.env.wasm.wasmPaths = { mjs: message.loader };
  ort.env.wasm.wasmBinary = message.wasm;
  ort.env.wasm.numThreads = message.threads;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider], logSeverityLevel: 3 });
  const network: Network = async (slices, shape) => {
    const result = await session.run({ slices: new ort.Tensor("float32", slices, shape) }, ["logits"]);
    const logits = (await result["logits"]!.getData()) as Float32Array;
    result["logits"]!.dispose();
    return logits;
  };
  const difference = await goldenDifference(network, about);
  const warnings: string[] = [];
  if (difference !== null && !(difference <= 1)) {
    const words = `the model's own test gives another answer here than at export: ${difference.toPrecision(3)} times the tolerance`;
    if (provider === "webgpu") throw new Error(words);
    warnings.push(words);
  }
  say({ kind: "loaded", warnings });
  return { about, network };
}

async function run(about: Metadata, network: Network, { files, parents, folder }: Segment): Promise<void> {
  const start = now();
  say({ kind: "stage", words: "Reading" });
  const scan = await readScan(files, folder, about.preprocessing.num_channels, parents);
  try {
    const warnings = warningsFor(scan.volume, about);
    say({ kind: "stage", words: "Segmenting" });
    const labels = await segment(network, scan.volume, about, (done, total) => say({ kind: "progress", done, total }));
    say({ kind: "stage", words: "Finishing" });
    const result = await resultOf(stemOf(scan.name), scan.volume, labels, about);
    const done = { ...result, warnings, seconds: now() - start };
    say({ kind: "done", result: done }, [result.image, result.overlay]);
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${scan.name}: ${error.message}`);
    throw error;
  }
}

async function resultOf(
  stem: string,
  volume: Volume,
  labels: Uint8Array<ArrayBuffer>,
  about: Metadata,
): Promise<Omit<Result, "warnings" | "seconds">> {
  const voxels = about.classes.map(() => 0);
  for (let i = 0; i < labels.length; i++) voxels[labels[i]!]!++;
  const first = volume.channels[0]!.values;
  const shown = first instanceof Float64Array ? Float32Array.from(first) : first;
  const place = { shape: volume.shape, affine: volume.affine, codes: null }; // NiiVue reads headers without codes otherwise
  return {
    stem,
    image: writeNifti(shown, place).buffer,
    overlay: writeNifti(labels, place, LABEL_INTENT).buffer,
    saved: await gzipped(writeNifti(withValues(labels, about), volume)),
    voxels,
    mlPerVoxel: voxelVolumeOf(volume.affine) / 1000,
    shape: volume.shape,
    spacing: spacingOf(volume.affine),
  };
}

/** Class indices as the label values of the user's own files, in the type that the command line gives them. */
export function withValues(labels: Uint8Array, about: Metadata): Voxels {
  const values = about.classes.map(({ value }) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const kinds: [new (n: number) => Voxels, number, number][] = [
    [Uint8Array, 0, 255],
    [Uint16Array, 0, 65535],
    [Uint32Array, 0, 2 ** 32 - 1],
    [Int16Array, -32768, 255],
  ];
  const kind = kinds.find(([, low, high]) => low <= least && most <= high)?.[0] ?? Int32Array;
  const out = new kind(labels.length);
  for (let i = 0; i < out.length; i++) out[i] = values[labels[i]!]!;
  return out;
}

function gzipped(bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}
