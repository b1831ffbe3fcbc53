/** Finishing of label maps: every foreground class keeps its largest part, without what only a neck joins to it. */

import type { Triple } from "../scan/volume";
import type { Metadata } from "./artefact";
import { largest, numberParts, squaredDistances } from "./parts";

const ROUNDING = 1e-6; // of a voxel: 6 mm are three voxels of 2 mm, whatever the binary fractions say
const TIE = 1 + 2e-9; // squared distances this close are equal: the largest piece has the voxel

interface Box {
  low: Triple;
  shape: Triple;
}

/** labels: class indices on the volume's grid, changed in place. */
export function finish(labels: Uint8Array, shape: Triple, spacing: Triple, about: Metadata): void {
  const { largest_component, erosion_mm = 0 } = about.postprocessing;
  if (!largest_component) return;
  const radii = shape.map((n, axis) => (n > 1 ? Math.floor(erosion_mm / spacing[axis]! + ROUNDING) : 0)) as Triple;
  const boxes = boxesOf(labels, shape, about.classes.length);
  for (let index = 1; index < boxes.length; index++) {
    const box = boxes[index];
    if (!box) continue;
    const mask = cut(labels, shape, box, (value) => value === index);
    const parts = numberParts(mask, box.shape);
    const isLargest = largest(parts);
    const kept = new Uint8Array(mask.length);
    for (let main = 1; main < parts.sizes.length; main++) {
      if (!isLargest(main)) continue;
      const part = Uint8Array.from(parts.numbers, (number) => Number(number === main));
      withoutAttachments(part, box.shape, spacing, radii).forEach((inside, i) => {
        if (inside) kept[i] = 1;
      });
    }
    each(shape, box, (voxel, i) => {
      if (mask[i] && !kept[i]) labels[voxel] = 0;
    });
  }
}

/** Of every class the least box that holds its voxels. */
function boxesOf(labels: Uint8Array, [nx, ny, nz]: Triple, numClasses: number): (Box | undefined)[] {
  const low = Array.from({ length: numClasses }, (): Triple => [nx, ny, nz]);
  const high = Array.from({ length: numClasses }, (): Triple => [-1, -1, -1]);
  let voxel = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++) {
        const index = labels[voxel++]!;
        if (index === 0) continue;
        const [l, h] = [low[index]!, high[index]!];
        if (x < l[0]) l[0] = x;
        if (x > h[0]) h[0] = x;
        if (y < l[1]) l[1] = y;
        if (y > h[1]) h[1] = y;
        if (z < l[2]) l[2] = z;
        if (z > h[2]) h[2] = z;
      }
    }
  }
  return low.map((l, index) => {
    const h = high[index]!;
    return h[0] < 0 ? undefined : { low: l, shape: [h[0] - l[0] + 1, h[1] - l[1] + 1, h[2] - l[2] + 1] };
  });
}

function each([nx, ny]: Triple, { low, shape }: Box, visit: (voxel: number, inBox: number) => void): void {
  let i = 0;
  for (let z = 0; z < shape[2]; z++) {
    for (let y = 0; y < shape[1]; y++) {
      let voxel = low[0] + nx * (low[1] + y + ny * (low[2] + z));
      for (let x = 0; x < shape[0]; x++) visit(voxel++, i++);
    }
  }
}

function cut(array: Uint8Array, shape: Triple, box: Box, holds: (value: number) => boolean): Uint8Array {
  const mask = new Uint8Array(box.shape[0] * box.shape[1] * box.shape[2]);
  each(shape, box, (voxel, i) => (mask[i] = Number(holds(array[voxel]!))));
  return mask;
}

/** One connected part without what only a neck of less than twice the radii joins to its largest piece. */
function withoutAttachments(whole: Uint8Array, outer: Triple, spacing: Triple, radii: Triple): Uint8Array {
  const box = boxesOf(whole, outer, 2)[1]!;
  if (!radii.some((r) => r > 0) || radii.some((r, axis) => 2 * r + 1 > box.shape[axis]!)) return whole;
  const part = cut(whole, outer, box, Boolean);
  const pieces = numberParts(eroded(part, box.shape, radii), box.shape);
  if (pieces.sizes.length <= 2) return whole; // one piece, or none of a part that is thin everywhere
  const isLargest = largest(pieces);
  if (pieces.sizes.every((_, number) => number === 0 || isLargest(number))) return whole; // none is attached to another
  const distance = (holds: (number: number) => boolean): Float64Array =>
    squaredDistances(Uint8Array.from(pieces.numbers, (number) => Number(holds(number))), box.shape, spacing);
  const toMain = distance(isLargest);
  const toOthers = distance((number) => number > 0 && !isLargest(number));
  const own = numberParts(
    part.map((inside, i) => Number(inside === 1 && toMain[i]! <= toOthers[i]! * TIE)),
    box.shape,
  );
  const stays = largest(own);
  const kept = new Uint8Array(whole.length);
  each(outer, box, (voxel, i) => (kept[voxel] = Number(stays(own.numbers[i]!))));
  return kept;
}

/** True where the whole box of 2 r + 1 voxels along every axis lies in the mask. */
function eroded(mask: Uint8Array, shape: Triple, radii: Triple): Uint8Array {
  let current = mask;
  const strides = [1, shape[0], shape[0] * shape[1]];
  radii.forEach((radius, axis) => {
    if (radius === 0) return;
    const [length, stride] = [shape[axis]!, strides[axis]!];
    const next = new Uint8Array(current.length);
    for (let start = 0; start < current.length; start++) {
      if (Math.floor(start / stride) % length !== 0) continue;
      let run = 0; // voxels of the mask in a row, up to here
      for (let i = 0; i < length; i++) {
        run = current[start + i * stride] ? run + 1 : 0;
        if (run >= 2 * radius + 1) next[start + (i - radius) * stride] = 1;
      }
    }
    current = next;
  });
  return current;
}
