/** A volume through a network: any function from slices to logits. */

import { InputError, spacingOf, type Volume } from "../scan/volume";
import type { Metadata } from "./artefact";
import { finish } from "./finish";
import { restore, VolumeSlices } from "./slices";

/** Slices float32 `(count, channels, rows, columns)` to logits float32 `(count, classes, rows, columns)`. */
export type Network = (
  slices: Float32Array<ArrayBuffer>,
  shape: [count: number, channels: number, rows: number, columns: number],
) => Promise<Float32Array>;

const BATCH_PIXELS = 2 * 256 * 256; // one slice of 512 x 512 at a time, or a few small ones

/** Class indices on the volume's own grid. progress: how many slices of how many are done. */
export async function segment(
  network: Network,
  volume: Volume,
  about: Metadata,
  progress: (done: number, total: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const slices = new VolumeSlices(volume, about);
  const { grid } = slices;
  const { rows, columns } = grid.window;
  const numClasses = about.classes.length;
  const size = Math.max(1, Math.floor(BATCH_PIXELS / (rows * columns)));
  const labels = new Uint8Array(volume.shape[0] * volume.shape[1] * volume.shape[2]);
  for (let first = 0; first < grid.count; first += size) {
    const count = Math.min(size, grid.count - first);
    const logits = await network(slices.input(first, count), [count, about.input.channels, rows, columns]);
    if (!logits.every(Number.isFinite)) {
      throw new InputError(`network: logits must be finite, those of slices ${first} to ${first + count - 1} are not`);
    }
    const one = logits.length / count;
    for (let i = 0; i < count; i++) restore(logits.subarray(i * one, (i + 1) * one), numClasses, grid, first + i, labels);
    progress(first + count, grid.count);
  }
  finish(labels, volume.shape, spacingOf(volume.affine), about);
  return labels;
}
