/** Orientation of the axes, and resampling in plane. */

import { determinant, type Matrix, spacingOf, type Triple } from "../scan/volume";

/** Of each array axis: the oriented axis that it becomes, and +1 or -1. */
export type Transform = [number, 1 | -1][];

const CODES: Record<string, [number, 1 | -1]> = { R: [0, 1], L: [0, -1], A: [1, 1], P: [1, -1], S: [2, 1], I: [2, -1] };

/** How the axes of an array with this affine are permuted and flipped to run to `orientation`; null: they stay. */
export function orientationTransform(affine: Matrix, orientation: string | null): Transform {
  if (orientation === null) return [0, 1, 2].map((axis) => [axis, 1]);
  const wanted = [...orientation].map((code) => CODES[code]!);
  return nearestAxes(affine).map(([patientAxis, sign]) => {
    const axis = wanted.findIndex(([other]) => other === patientAxis);
    return [axis, (sign * wanted[axis]![1]) as 1 | -1];
  });
}

/** Of each array axis the patient axis (0 right, 1 anterior, 2 superior) that is nearest, and the sign along it. */
function nearestAxes(affine: Matrix): Transform {
  const rotation = nearestRotation(affine);
  const strength = [0, 1, 2].map((column) => Math.max(...rotation.map((row) => row[column]! ** 2)));
  const order = [0, 1, 2].sort((a, b) => strength[b]! - strength[a]!);
  const result: Transform = [];
  const free = new Set([0, 1, 2]);
  for (const column of order) {
    const axis = [...free].reduce((best, row) =>
      Math.abs(rotation[row]![column]!) > Math.abs(rotation[best]![column]!) ? row : best,
    );
    free.delete(axis);
    result[column] = [axis, rotation[axis]![column]! < 0 ? -1 : 1];
  }
  return result;
}

/** Where the array's axes run to, such as LAS. */
export function axisCodes(affine: Matrix): string {
  return nearestAxes(affine)
    .map(([axis, sign]) => ["RL", "AP", "SI"][axis]![sign > 0 ? 0 : 1])
    .join("");
}

/** The orthogonal factor of the polar decomposition of the directions, by Newton's iteration. */
function nearestRotation(affine: Matrix): Matrix {
  const spacing = spacingOf(affine);
  let m = [0, 1, 2].map((row) => [0, 1, 2].map((column) => affine[row]![column]! / spacing[column]!));
  for (let step = 0; step < 50; step++) {
    const inverse = inverseTranspose(m);
    const next = m.map((row, r) => row.map((value, c) => (value + inverse[r]![c]!) / 2));
    const change = Math.max(...next.flat().map((value, i) => Math.abs(value - m.flat()[i]!)));
    m = next;
    if (change < 1e-14) break;
  }
  return m;
}

function inverseTranspose(m: Matrix): Matrix {
  const d = determinant(m);
  const cofactor = (r: number, c: number): number => {
    const [r1, r2, c1, c2] = [(r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3];
    return (m[r1]![c1]! * m[r2]![c2]! - m[r1]![c2]! * m[r2]![c1]!) / d;
  };
  return [0, 1, 2].map((r) => [0, 1, 2].map((c) => cofactor(r, c)));
}

/** Values of the three array axes, by oriented axis. */
export function oriented(values: Triple, transform: Transform): Triple {
  const result: Triple = [0, 0, 0];
  transform.forEach(([axis], arrayAxis) => (result[axis] = values[arrayAxis]!));
  return result;
}

/** Half to even, as `docs/artefact.md` rounds the number of pixels. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** For each output pixel the first input pixel and the weights from there on; float32, they sum to 1. */
interface Filter {
  first: Int32Array;
  starts: Int32Array;
  weights: Float32Array;
}

const filters = new Map<string, Filter>();

/** Linear interpolation, widened by the reduction so that down-sampling does not alias. */
export function triangleFilter(nIn: number, nOut: number): Filter {
  const key = `${nIn} ${nOut}`;
  const known = filters.get(key);
  if (known) return known;
  const scale = Math.max(1, nIn / nOut);
  const first = new Int32Array(nOut);
  const starts = new Int32Array(nOut + 1);
  const weights: number[] = [];
  for (let u = 0; u < nOut; u++) {
    const centre = ((u + 0.5) * nIn) / nOut - 0.5;
    const row: number[] = [];
    for (let i = Math.max(0, Math.floor(centre - scale)); i < nIn && i <= centre + scale; i++) {
      const weight = Math.max(0, 1 - Math.abs(i - centre) / scale);
      if (weight === 0) continue;
      if (row.length === 0) first[u] = i;
      row.push(weight);
    }
    const sum = row.reduce((a, b) => a + b, 0);
    weights.push(...row.map((weight) => weight / sum));
    starts[u + 1] = weights.length;
  }
  const filter = { first, starts, weights: Float32Array.from(weights) };
  if (filters.size > 64) filters.clear();
  filters.set(key, filter);
  return filter;
}

const round = Math.fround;

/** One plane (rows x columns) resized to `height` x `width`; the arithmetic is float32's. */
export function resizePlane(plane: Float32Array, rows: number, columns: number, height: number, width: number): Float32Array {
  if (rows === height && columns === width) return plane;
  const down = triangleFilter(rows, height);
  const across = triangleFilter(columns, width);
  const half = new Float32Array(height * columns);
  for (let r = 0; r < height; r++) {
    const line = half.subarray(r * columns, (r + 1) * columns);
    for (let k = down.starts[r]!, i = down.first[r]!; k < down.starts[r + 1]!; k++, i++) {
      const weight = down.weights[k]!;
      for (let c = 0, at = i * columns; c < columns; c++, at++) line[c] = round(line[c]! + round(weight * plane[at]!));
    }
  }
  const out = new Float32Array(height * width);
  for (let c = 0; c < width; c++) {
    const from = across.starts[c]!;
    const count = across.starts[c + 1]! - from;
    const left = across.first[c]!;
    for (let r = 0, at = left, to = c; r < height; r++, at += columns, to += width) {
      let sum = 0;
      for (let k = 0; k < count; k++) sum = round(sum + round(across.weights[from + k]! * half[at + k]!));
      out[to] = sum;
    }
  }
  return out;
}
