/** One DICOM series, its slices sorted along their normal. */

import { COMMON, readSlices, type Slice, type Vector } from "./dicom_file";
import { checkedAffine, InputError, type Matrix, MAX_VOXELS, type Volume, type Voxels } from "./volume";
import { general, thousands } from "./words";

const MAX_SLICES = 16384;
const GAP_TOLERANCE = 0.1; // of the slice spacing
const [ROUNDING_MM, MAX_ROUNDING] = [0.101, 0.25]; // positions rounded to 0.1 mm, where that is a small part of the spacing
const DIRECTION_TOLERANCE = 1e-3;
const MAX_SHIFT = 0.5; // voxels from a slice's place in the volume, along each axis

/** The one series in `files`, all with DICOM's mark; X along a row's columns, Y down the rows, Z along the normal. */
export async function readSeries(name: string, files: readonly File[]): Promise<Volume> {
  if (files.length > MAX_SLICES) throw new InputError(`${name}: at most ${MAX_SLICES} slices are supported, got ${files.length}`);
  const slices: Slice[] = [];
  let voxels = 0;
  for (const file of [...files].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    for (const slice of await readSlices(file)) {
      slices.push(slice);
      voxels += slice.pixels.length;
    }
    if (voxels > MAX_VOXELS) throw new InputError(`${name}: at most ${thousands(MAX_VOXELS)} voxels are supported`);
  }
  const [ordered, affine] = inOrder(name, slices);
  const first = ordered[0]!;
  const real = ordered.some((slice) => slice.integerRange === null);
  const alike = ordered.every((slice) => slice.pixels.constructor === first.pixels.constructor);
  if (!alike && !real) throw new InputError(`${name}: slices must have one type of values: BitsAllocated and PixelRepresentation`);
  const kind = (alike ? first.pixels.constructor : Float32Array) as new (n: number) => Voxels;
  const values = new kind(voxels);
  ordered.forEach((slice, z) => values.set(slice.pixels, z * slice.pixels.length));
  return {
    channels: [{ values, integerRange: real ? null : first.integerRange }],
    shape: [first.columns, first.rows, ordered.length],
    affine: checkedAffine(name, affine),
    isOriented: true,
    codes: null,
  };
}

const dot = (a: Vector, b: Vector): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** The slices along their normal, and the affine in RAS+ of (column, row, slice). */
function inOrder(name: string, unordered: Slice[]): [Slice[], Matrix] {
  const first = unordered[0]!;
  for (const other of unordered.slice(1)) checkAlike(name, first, other);
  const [u, v] = first.directions;
  const normal: Vector = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const slices = [...unordered].sort((a, b) => dot(a.position, normal) - dot(b.position, normal));
  let step = normal.map((n) => n * first.thickness) as Vector;
  if (slices.length > 1) {
    checkGaps(name, slices, normal);
    const [low, high] = [slices[0]!.position, slices.at(-1)!.position];
    step = low.map((value, axis) => (high[axis]! - value) / (slices.length - 1)) as Vector;
  }
  const origin = slices[0]!.position;
  checkPlaces(name, slices, normal, step);
  const affine = [0, 1, 2].map((axis) => {
    const row = [u[axis]! * first.pixelMm[1], v[axis]! * first.pixelMm[0], step[axis]!, origin[axis]!];
    return axis < 2 ? row.map((value) => -value) : row; // DICOM's left and posterior to right and anterior
  });
  return [slices, [...affine, [0, 0, 0, 1]]];
}

function checkAlike(name: string, first: Slice, other: Slice): void {
  const differing = Object.keys(COMMON).find((element) => other.common[element] !== first.common[element]);
  if (differing === "SeriesInstanceUID") {
    throw new InputError(`${name}: holds several DICOM series, ${other.name} is of another than ${first.name}: choose the files of one`);
  }
  if (differing) {
    const rule = `slices of a series must agree in ${differing}, ${other.name} differs from ${first.name}`;
    throw new InputError(`${name}: ${rule}; put each patient's and each scan's into a folder of its own`);
  }
  const near = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-8 + 1e-4 * Math.abs(b);
  const sameGrid =
    other.rows === first.rows && other.columns === first.columns && other.pixelMm.every((mm, i) => near(mm, first.pixelMm[i]!));
  const turn = Math.max(...other.directions.flat().map((value, i) => Math.abs(value - first.directions.flat()[i]!)));
  if (!sameGrid || turn > DIRECTION_TOLERANCE) {
    throw new InputError(`${name}: slices must agree in size, spacing and direction, ${other.name} differs from ${first.name}`);
  }
}

/** No slice lies elsewhere than the volume's axis of slices goes, as after a shift. */
function checkPlaces(name: string, slices: Slice[], normal: Vector, step: Vector): void {
  const { position: origin, directions, pixelMm } = slices[0]!;
  const shifts = slices.map(({ position }, index) => {
    const away = position.map((value, axis) => value - origin[axis]! - index * step[axis]!) as Vector;
    const along = dot(away, normal) / dot(step, normal);
    const rest = away.map((value, axis) => value - along * step[axis]!) as Vector;
    return Math.max(Math.abs(along), Math.abs(dot(rest, directions[0])) / pixelMm[1], Math.abs(dot(rest, directions[1])) / pixelMm[0]);
  });
  const worst = shifts.indexOf(Math.max(...shifts));
  if (shifts[worst]! > MAX_SHIFT) {
    const shifted = `${slices[worst]!.name} is ${general(shifts[worst]!, 2)} voxels away from the line of the first to the last`;
    throw new InputError(`${name}: slices must lie in a straight line, evenly, but ${shifted}`);
  }
}

function checkGaps(name: string, slices: Slice[], normal: Vector): void {
  const gaps = slices.slice(1).map((slice, i) => dot(slice.position, normal) - dot(slices[i]!.position, normal));
  const sorted = [...gaps].sort((a, b) => a - b);
  const typical = (sorted[(gaps.length - 1) >> 1]! + sorted[gaps.length >> 1]!) / 2;
  const least = gaps.indexOf(sorted[0]!);
  if (sorted[0]! <= 1e-3) {
    const [one, other] = [slices[least]!.name, slices[least + 1]!.name];
    if (one === other) {
      const advice = "as phases and echoes do: convert it to a NIfTI file for each, e.g. with dcm2niix";
      throw new InputError(`${name}: ${one} has several frames in the same place, ${advice}`);
    }
    const advice = "leave one out, or put phases into folders of their own";
    throw new InputError(`${name}: two slices lie in the same place, ${one} and ${other}; ${advice}`);
  }
  const apart = gaps.map((gap) => Math.abs(gap - typical));
  const worst = apart.indexOf(Math.max(...apart));
  if (apart[worst]! > Math.max(GAP_TOLERANCE * typical, Math.min(ROUNDING_MM, MAX_ROUNDING * typical))) {
    const [a, b] = [slices[worst]!.name, slices[worst + 1]!.name];
    const mm = (value: number): string => general(value, 6);
    throw new InputError(
      `${name}: slices must be evenly spaced, ${mm(typical)} mm apart, but ${a} and ${b} are ${mm(gaps[worst]!)} mm apart: is one missing?`,
    );
  }
}
