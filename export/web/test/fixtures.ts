/** What the Python side makes of small inputs; `tests/export/web/write_fixtures.py` writes them. */

import { gunzipSync } from "node:zlib";
import type { Metadata } from "../src/network/artefact";
import type { Channel, Volume, Voxels } from "../src/scan/volume";
import values from "./fixtures.json";

export const fixtures = values;

export function bytes(base64: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(base64, "base64"));
}

export function floats(gzippedBase64: string): Float32Array {
  return new Float32Array(new Uint8Array(gunzipSync(bytes(gzippedBase64))).buffer);
}

export function file(name: string, base64: string): File {
  return new File([bytes(base64)], name);
}

const KINDS: Record<string, [new (values: number[]) => Voxels, number | null]> = {
  uint8: [Uint8Array, 255],
  int16: [Int16Array, 65535],
  uint16: [Uint16Array, 65535],
  int32: [Int32Array, 2 ** 32 - 1],
  float32: [Float32Array, null],
};

export function channel(numbers: number[], dtype: string): Channel {
  const [kind, integerRange] = KINDS[dtype]!;
  return { values: new kind(numbers), integerRange };
}

export function volume(channels: Channel[], shape: number[], affine: number[][]): Volume {
  return { channels, shape: shape as Volume["shape"], affine, isOriented: true, codes: null };
}

/** Metadata with the fields that a step reads. */
export function about(fields: object): Metadata {
  const classes = ["background", "one", "two", "three"].map((name, index) => ({ index, name, value: index, color: "#000000" }));
  return { classes, input: { channels: 1, height: null, width: null }, ...fields } as Metadata;
}
