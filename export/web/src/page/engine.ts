/** The worker with the network: started with what this browser can do, and started anew after a cancel. */

import type { Metadata } from "../network/artefact";
import type { FromWorker, Load, ToWorker } from "../worker/messages";
import { asset, isSingleFile, scriptUrl } from "./assets";

export type Provider = "webgpu" | "wasm";

const FILES: Record<Provider, { worker: string; runtime: string }> = {
  wasm: { worker: "worker-wasm.js", runtime: "ort-wasm-simd-threaded" },
  webgpu: { worker: "worker-webgpu.js", runtime: "ort-wasm-simd-threaded.asyncify" },
};
const MAX_THREADS = 8; // beyond them slices of this size gain nothing

export interface Choice {
  provider: Provider;
  threads: number;
  /** Where the choice is not the browser's best, the reason. */
  note: string;
}

/** WebGPU where there is one, else WebAssembly. `?provider=wasm` and `?threads=1` in the address decide otherwise. */
export async function choose(precision: Metadata["precision"], search: string): Promise<Choice> {
  const provider = new URLSearchParams(search).get("provider");
  if (provider === "wasm" || isSingleFile() || precision === "int8") return webAssembly(search);
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const usable = adapter && (precision === "fp32" || adapter.features.has("shader-f16")) && !adapter.info.isFallbackAdapter;
  return usable || provider === "webgpu" ? { provider: "webgpu", threads: 1, note: "" } : webAssembly(search);
}

/** With as many threads as the page's headers allow. */
export function webAssembly(search: string, reason = ""): Choice {
  const isolated = globalThis.crossOriginIsolated;
  const wanted = Number(new URLSearchParams(search).get("threads"));
  const threads = isolated ? Math.min(wanted >= 1 ? Math.floor(wanted) : navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
  const single = isolated ? "" : "one thread: the server sends no headers for cross-origin isolation";
  return { provider: "wasm", threads, note: [reason, single].filter(Boolean).join("; ") };
}

export class Engine {
  private worker: Worker | undefined;
  private parts: Omit<Load, "kind"> | undefined;
  private script = "";

  constructor(
    private readonly model: ArrayBuffer,
    private readonly name: string,
    private readonly hear: (message: FromWorker) => void,
  ) {}

  async start({ provider, threads }: Choice): Promise<void> {
    const { worker, runtime } = FILES[provider];
    const single = isSingleFile();
    this.script = await scriptUrl(single ? "worker-single.js" : worker);
    this.parts = {
      model: this.model,
      name: this.name,
      loader: single ? null : await scriptUrl(`${runtime}.mjs`),
      wasm: await asset(`${runtime}.wasm`),
      threads,
    };
    this.restart();
  }

  /** A worker cannot be stopped inside the network: it is ended, and a new one loads the model. */
  restart(): void {
    this.stop();
    this.worker = new Worker(this.script, { type: isSingleFile() ? "classic" : "module" });
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>): void => this.hear(data);
    this.worker.onerror = (event): void => this.hear({ kind: "failed", line: event.message || "the worker did not start" });
    this.send({ kind: "load", ...this.parts! });
  }

  stop(): void {
    this.worker?.terminate();
    this.worker = undefined;
  }

  segment(files: File[], parents: string[], folder: string | null): void {
    this.send({ kind: "segment", files, parents, folder });
  }

  private send(message: ToWorker): void {
    this.worker!.postMessage(message);
  }
}
