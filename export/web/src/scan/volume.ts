/** A scan in memory, as its file defines it. */

import { general, python } from "./words";

export type Triple = [number, number, number];
export type Matrix = number[][];
export type Voxels =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

/** One channel. `integerRange` is the span of the file's integer type (255 for uint8), null for real numbers. */
export interface Channel {
  values: Voxels;
  integerRange: number | null;
}

/** The codes of a NIfTI header that a label map on the same grid repeats. */
export interface GridCodes {
  qformCode: number;
  sformCode: number;
  units: number;
  /** qfac and the voxel sizes, `pixdim[0]` to `pixdim[3]`. */
  pixdim: [number, number, number, number];
  /** quatern_b, quatern_c, quatern_d, qoffset_x, qoffset_y, qoffset_z. */
  quaternion: number[];
  /** The three rows of the sform, 12 numbers. */
  sform: number[];
}

/**
 * channels: voxels with the first axis fastest, as NIfTI stores them.
 * affine: 4 x 4, voxel index to mm; axes to the patient's right, anterior and superior (RAS+).
 * codes: of the NIfTI file; null for other formats.
 */
export interface Volume {
  channels: Channel[];
  shape: Triple;
  affine: Matrix;
  /** False where the file does not say how its axes lie in the patient. */
  isOriented: boolean;
  codes: GridCodes | null;
}

/** The wrong input, in one line: file, rule, value. */
export class InputError extends Error {
  override name = "InputError";
}

export const AGAIN = "copy or download it again";
export const MAX_VOXELS = 2 ** 28; // a browser's memory; the command line takes four times as many
const MAX_AXIS = 2 ** 15 - 1; // of the label map, which is NIfTI-1
const MAX_OFFSET_MM = 1e9;
export const SPACING_RANGE_MM: [number, number] = [1e-6, 1e6];

/** Volume of a voxel in mm³; of a sheared grid less than the product of its sizes. */
export function voxelVolumeOf(affine: Matrix): number {
  return Math.abs(determinant(affine));
}

/** Voxel size in mm along the three axes. */
export function spacingOf(affine: Matrix): Triple {
  const column = (c: number): number => Math.hypot(affine[0]![c]!, affine[1]![c]!, affine[2]![c]!);
  return [column(0), column(1), column(2)];
}

export function determinant(m: Matrix): number {
  const [a, b, c] = [m[0]!, m[1]!, m[2]!];
  return (
    a[0]! * (b[1]! * c[2]! - b[2]! * c[1]!) - a[1]! * (b[0]! * c[2]! - b[2]! * c[0]!) + a[2]! * (b[0]! * c[1]! - b[1]! * c[0]!)
  );
}

/** The affine, where it is finite and invertible and its voxels have a size that exists. */
export function checkedAffine(name: string, affine: Matrix): Matrix {
  const spacing = spacingOf(affine);
  const [low, high] = SPACING_RANGE_MM;
  if (!affine.flat().every(Number.isFinite) || Math.min(...spacing) < low || Math.max(...spacing) > high) {
    const limits = `${general(low, 6)} to ${general(high, 6)}`;
    throw new InputError(`${name}: the affine must be finite with voxels of ${limits} mm, got ${list(spacing)}`);
  }
  const directions = [0, 1, 2].map((row) => [0, 1, 2].map((column) => affine[row]![column]! / spacing[column]!));
  if (Math.abs(determinant(directions)) < 1e-4) {
    const rows = affine.slice(0, 3).map((row) => list(row.slice(0, 3)));
    throw new InputError(`${name}: the affine must be invertible, got [${rows.join(", ")}]`);
  }
  const first = [0, 1, 2].map((row) => affine[row]![3]!);
  if (Math.max(...first.map(Math.abs)) > MAX_OFFSET_MM) {
    const limit = general(MAX_OFFSET_MM, 6);
    throw new InputError(`${name}: the first voxel must lie within ${limit} mm of the origin, got ${list(first)}`);
  }
  return affine;
}

function list(values: number[]): string {
  return `[${values.map(python).join(", ")}]`;
}

/** Refuses voxels that are not finite, and an axis that the label map's header cannot hold. */
export function checkVoxels(name: string, volume: Volume): void {
  const longest = Math.max(...volume.shape);
  if (longest > MAX_AXIS) {
    throw new InputError(`${name}: an axis of at most ${MAX_AXIS} voxels is segmented in the browser, got ${longest}; use attunet predict`);
  }
  let bad = 0;
  let total = 0;
  for (const { values, integerRange } of volume.channels) {
    total += values.length;
    if (integerRange !== null) continue;
    for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) bad++;
  }
  const advice = "replace them, e.g. by the background's value";
  if (bad > 0) throw new InputError(`${name}: voxels must be finite numbers, ${bad} of ${total} are NaN or infinite; ${advice}`);
}
