/** The page: a scan is dropped, segmented by the worker, shown, and saved. */

import { type Metadata, readMetadata } from "../network/artefact";
import type { FromWorker, Result } from "../worker/messages";
import { asset, isSingleFile } from "./assets";
import { type Dropped, fromDrop, fromInput } from "./drop";
import { type Choice, choose, Engine, webAssembly } from "./engine";
import { describeModel, showResult } from "./panels";
import { type View, Viewer } from "./viewer";

const MODEL = document.documentElement.dataset["model"] ?? "model.onnx";

function element<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const buttons = [element<HTMLButtonElement>("choose-file"), element<HTMLButtonElement>("choose-folder")];
const viewer = new Viewer(element<HTMLCanvasElement>("canvas"), (line) => {
  element("voxel").textContent = line;
  showSlice();
});

let about: Metadata;
let engine: Engine;
let choice: Choice;
let ready = false;
let busy = false;
const hidden = new Set<number>();

async function start(): Promise<void> {
  await linkLicences();
  const model = await asset(MODEL);
  about = readMetadata(new Uint8Array(model), MODEL);
  describeModel(about);
  choice = await choose(about.precision, location.search);
  engine = new Engine(model, MODEL, (message) => void hear(message));
  await engine.start(choice);
}

async function hear(message: FromWorker): Promise<void> {
  switch (message.kind) {
    case "loaded":
      ready = true;
      showEngine();
      enable();
      warn(message.warnings);
      break;
    case "stage":
      showStage(message.words);
      break;
    case "progress":
      showStage(`Slice ${message.done} of ${message.total}`, message.done / message.total);
      break;
    case "done":
      await show(message.result);
      break;
    case "refused":
      finish();
      fail(message.line);
      break;
    case "failed":
      await recover(message.line);
  }
}

/** WebGPU that does not work here gives way to WASM; a worker that dies otherwise is started anew. */
async function recover(line: string): Promise<void> {
  finish();
  if (choice.provider === "webgpu" && !ready) {
    engine.stop();
    choice = webAssembly(location.search, `WebGPU does not work here: ${line}`);
    await engine.start(choice);
    return;
  }
  fail(line);
  if (ready) {
    ready = false;
    enable();
    engine.restart();
  }
}

function segment({ files, parents, folder }: Dropped): void {
  if (!ready || busy || files.length === 0) return;
  busy = true;
  enable();
  fail("");
  warn([]);
  element("work").hidden = false;
  showStage("Reading");
  engine.segment(files, parents, folder);
}

async function show(result: Result): Promise<void> {
  finish();
  warn(result.warnings);
  element("drop").classList.add("small");
  element("drop-title").textContent = "Drop another scan";
  element("result").hidden = false;
  hidden.clear();
  showResult(result, about, (index, shown) => {
    if (shown) hidden.delete(index);
    else hidden.add(index);
    viewer.hide(about.classes, hidden);
  });
  try {
    await viewer.show(result, about.classes);
  } catch (error) {
    fail(`the viewer does not work in this browser (the label map can be saved all the same): ${(error as Error).message}`);
  }
}

function finish(): void {
  busy = false;
  element("work").hidden = true;
  enable();
}

function cancel(): void {
  finish();
  ready = false;
  enable();
  engine.restart();
}

function enable(): void {
  for (const button of buttons) button.disabled = !ready || busy;
}

function showStage(words: string, share?: number): void {
  element("stage").textContent = words;
  const progress = element<HTMLProgressElement>("progress");
  if (share === undefined) progress.removeAttribute("value");
  else progress.value = share;
}

function showSlice(): void {
  const { count, at } = viewer.slices;
  const slider = element<HTMLInputElement>("slice");
  slider.max = String(count - 1);
  slider.value = String(at);
  slider.setAttribute("aria-valuetext", `slice ${at + 1} of ${count}`);
}

function showEngine(): void {
  const { provider, threads, note } = choice;
  const words = provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
  element("engine").textContent = `Runs on this computer: ${words}`;
  element("engine").title = note;
  element("engine").hidden = false;
}

function fail(line: string): void {
  element("error").textContent = line;
  element("error").hidden = line === "";
}

function warn(lines: readonly string[]): void {
  const rows = lines.map((line) => Object.assign(document.createElement("li"), { textContent: line }));
  element("warnings").replaceChildren(...rows);
  element("warnings").hidden = rows.length === 0;
}

/** Within one HTML file the licences have no address of their own. */
async function linkLicences(): Promise<void> {
  const link = element<HTMLAnchorElement>("licences");
  const name = link.getAttribute("href")!;
  if (isSingleFile()) link.href = URL.createObjectURL(new Blob([await asset(name)], { type: "text/plain" }));
}

function listen(): void {
  const drop = element("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.toggle("over", ready && !busy);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer) void fromDrop(event.dataTransfer).then(segment, (error: Error) => fail(error.message));
  });
  ["file", "folder"].forEach((id, i) => {
    const input = element<HTMLInputElement>(id);
    buttons[i]!.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      segment(fromInput(input));
      input.value = "";
    });
  });
  element("cancel").addEventListener("click", cancel);
  element("views").addEventListener("change", (event) => {
    viewer.setView((event.target as HTMLInputElement).value as View);
    showSlice();
  });
  element("canvas").addEventListener("keydown", (event) => {
    const by = { ArrowUp: 1, PageUp: 1, ArrowDown: -1, PageDown: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    viewer.goToSlice(viewer.slices.at + by);
  });
  element("slice").addEventListener("input", (event) => viewer.goToSlice(Number((event.target as HTMLInputElement).value)));
  element("opacity").addEventListener("input", (event) => viewer.setOpacity(Number((event.target as HTMLInputElement).value)));
  element("outline").addEventListener("change", (event) => viewer.setOutline((event.target as HTMLInputElement).checked));
}

listen();
start().catch((error: Error) => {
  element("name").textContent = "The model cannot be used";
  fail(error.message);
});
