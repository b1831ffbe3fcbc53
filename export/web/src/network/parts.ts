/** Connected parts of a mask: voxels belong together where faces touch. Arrays have the first axis fastest. */

import type { Triple } from "../scan/volume";

export interface Parts {
  /** The number of every voxel's part from 1 on, in the order in which the last axis runs fastest; 0 outside the mask. */
  numbers: Int32Array;
  /** Voxels of each part; of none (index 0): 0. */
  sizes: number[];
}

export function numberParts(mask: Uint8Array, [nx, ny, nz]: Triple): Parts {
  const numbers = new Int32Array(mask.length);
  const sizes = [0];
  const queue = new Int32Array(mask.length);
  const plane = nx * ny;
  for (let x = 0; x < nx; x++) {
    for (let y = 0; y < ny; y++) {
      for (let z = 0; z < nz; z++) {
        const start = x + nx * y + plane * z;
        if (mask[start] && !numbers[start]) sizes.push(fill(start, sizes.length));
      }
    }
  }
  return { numbers, sizes };

  function fill(start: number, number: number): number {
    let end = 0;
    const add = (voxel: number): void => {
      if (mask[voxel] && !numbers[voxel]) {
        numbers[voxel] = number;
        queue[end++] = voxel;
      }
    };
    add(start);
    for (let at = 0; at < end; at++) {
      const voxel = queue[at]!;
      const x = voxel % nx;
      const y = Math.floor(voxel / nx) % ny;
      const z = Math.floor(voxel / plane);
      if (x > 0) add(voxel - 1);
      if (x < nx - 1) add(voxel + 1);
      if (y > 0) add(voxel - nx);
      if (y < ny - 1) add(voxel + nx);
      if (z > 0) add(voxel - plane);
      if (z < nz - 1) add(voxel + plane);
    }
    return end;
  }
}

/** Whether a part has the most voxels; several of equal size all have, so the order of storage does not matter. */
export function largest({ sizes }: Parts): (number: number) => boolean {
  const most = sizes.reduce((a, b) => Math.max(a, b), 0);
  return (number) => number > 0 && sizes[number] === most;
}

/** Squared distance in mm of every voxel to the nearest one of the mask, between centres: exact, axis by axis (Felzenszwalb). */
export function squaredDistances(mask: Uint8Array, shape: Triple, spacing: Triple): Float64Array {
  const result = Float64Array.from(mask, (inside) => (inside ? 0 : Infinity));
  const strides = [1, shape[0], shape[0] * shape[1]];
  for (let axis = 0; axis < 3; axis++) {
    const [length, stride] = [shape[axis]!, strides[axis]!];
    const line = new Float64Array(length);
    for (let start = 0; start < result.length; start++) {
      if (Math.floor(start / stride) % length !== 0) continue;
      for (let i = 0; i < length; i++) line[i] = result[start + i * stride]!;
      lowerEnvelope(line, spacing[axis]! ** 2).forEach((value, i) => (result[start + i * stride] = value));
    }
  }
  return result;
}

/** The least of `heights[j] + (i - j)^2 * step2` over j, for every i. */
function lowerEnvelope(heights: Float64Array, step2: number): Float64Array {
  const places: number[] = [];
  const from: number[] = [];
  for (let j = 0; j < heights.length; j++) {
    if (heights[j] === Infinity) continue;
    let cross = -Infinity;
    while (places.length > 0) {
      const last = places.at(-1)!;
      cross = ((heights[j]! - heights[last]!) / step2 + j * j - last * last) / (2 * (j - last));
      if (cross > from.at(-1)!) break;
      places.pop();
      from.pop();
      cross = -Infinity;
    }
    places.push(j);
    from.push(cross);
  }
  const out = new Float64Array(heights.length).fill(Infinity);
  for (let i = 0, k = 0; i < out.length && places.length > 0; i++) {
    while (k + 1 < places.length && from[k + 1]! < i) k++;
    out[i] = heights[places[k]!]! + (i - places[k]!) ** 2 * step2;
  }
  return out;
}
