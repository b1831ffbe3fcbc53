/** What the page and its worker say to each other. */

export interface Load {
  kind: "load";
  model: ArrayBuffer;
  name: string;
  /**
   * ONNX Runtime's loader as a blob's address, so that its threads inherit the page's content security policy; null where the
   * worker holds it.
   */
  loader: string | null;
  wasm: ArrayBuffer;
  threads: number;
}

export interface Segment {
  kind: "segment";
  files: File[];
  parents: string[];
  folder: string | null;
}

export type ToWorker = Load | Segment;

export interface Result {
  /** The scan's name without ending. */
  stem: string;
  /** The scan and its class indices as NIfTI, for the viewer. */
  image: ArrayBuffer;
  overlay: ArrayBuffer;
  /** The label map with the classes' own values, gzipped. */
  saved: Blob;
  /** Of every class, background first. */
  voxels: number[];
  mlPerVoxel: number;
  shape: [number, number, number];
  spacing: [number, number, number];
  warnings: string[];
  seconds: number;
}

export type FromWorker =
  | { kind: "loaded"; warnings: string[] }
  | { kind: "stage"; words: string }
  | { kind: "progress"; done: number; total: number }
  | { kind: "done"; result: Result }
  | { kind: "refused"; line: string }
  /** The engine does not work here: the page may try another. */
  | { kind: "failed"; line: string };
