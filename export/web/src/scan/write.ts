/** A map on a scan's own grid as a NIfTI-1 file: same shape, same affine, same codes, no text. */

import { spacingOf, type Volume, type Voxels } from "./volume";

export const LABEL_INTENT = 1002;
const MM = 2;
const ALIGNED = 2; // the sform's code where the scan is no NIfTI file

const TYPES: [new (n: number) => Voxels, number, number][] = [
  [Uint8Array, 2, 8],
  [Int8Array, 256, 8],
  [Int16Array, 4, 16],
  [Uint16Array, 512, 16],
  [Int32Array, 8, 32],
  [Uint32Array, 768, 32],
  [Float32Array, 16, 32],
  [Float64Array, 64, 64],
];

/** intent: NIfTI's code for the meaning of the values; 0 for none. */
export function writeNifti(
  values: Voxels,
  grid: Pick<Volume, "shape" | "affine" | "codes">,
  intent = 0,
): Uint8Array<ArrayBuffer> {
  const [, code, bits] = TYPES.find(([kind]) => values instanceof kind)!;
  const out = new Uint8Array(352 + values.byteLength);
  const view = new DataView(out.buffer);
  view.setInt32(0, 348, true);
  [3, ...grid.shape, 1, 1, 1, 1].forEach((n, i) => view.setInt16(40 + 2 * i, n, true));
  view.setInt16(68, intent, true);
  view.setInt16(70, code, true);
  view.setInt16(72, bits, true);
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  writeGrid(view, grid);
  out.set([0x6e, 0x2b, 0x31], 344); // n+1
  out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 352);
  return out;
}

function writeGrid(view: DataView, { affine, codes }: Pick<Volume, "affine" | "codes">): void {
  const pixdim = codes?.pixdim ?? [1, ...spacingOf(affine)];
  [...pixdim, 1, 1, 1, 1].forEach((n, i) => view.setFloat32(76 + 4 * i, n, true));
  view.setUint8(123, codes?.units ?? MM);
  view.setInt16(252, codes?.qformCode ?? 0, true);
  view.setInt16(254, codes?.sformCode ?? ALIGNED, true);
  codes?.quaternion.forEach((n, i) => view.setFloat32(256 + 4 * i, n, true));
  const rows = codes?.sform ?? affine.slice(0, 3).flat();
  rows.forEach((n, i) => view.setFloat32(280 + 4 * i, n, true));
}
