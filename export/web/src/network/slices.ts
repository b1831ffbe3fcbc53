/** From a volume to the network's input, slice by slice, and from logits back to class indices on the volume's own grid. */

import { InputError, spacingOf, type Triple, type Volume, type Voxels } from "../scan/volume";
import type { Metadata } from "./artefact";
import { orientationTransform, oriented, resizePlane, roundHalfEven } from "./geometry";
import { channelScaling, padValue, type Scaling, scaler } from "./intensity";

const MULTIPLE = 16;
const MAX_PIXELS = 2048 * 2048; // the command line runs larger slices in tiles

/** A plane of pixels: rows by columns. */
interface Size {
  rows: number;
  columns: number;
}

/** Where the voxels of a slice lie in the flat array: `start + z * slice + row * down + column * right`. */
interface Strides {
  start: number;
  slice: number;
  down: number;
  right: number;
}

export interface Grid {
  count: number;
  native: Size;
  resampled: Size;
  /** The padded slice that the network sees. */
  window: Size;
  offset: Size;
  strides: Strides;
}

export function makeGrid(volume: Volume, about: Metadata): Grid {
  const how = about.preprocessing;
  const transform = orientationTransform(volume.affine, how.orientation);
  const shape = oriented(volume.shape, transform);
  const spacing = oriented(spacingOf(volume.affine), transform);
  const [across, down] = [0, 1, 2].filter((axis) => axis !== how.slice_axis) as [number, number];
  const length = (axis: number): number =>
    how.spacing_mm === null ? shape[axis]! : Math.max(1, roundHalfEven((shape[axis]! * spacing[axis]!) / how.spacing_mm));
  const resampled = { rows: length(down), columns: length(across) };
  const padded = (n: number, least: number): number => Math.max(Math.ceil(n / MULTIPLE) * MULTIPLE, least);
  const { height, width } = about.input;
  const window = {
    rows: padded(resampled.rows, height ?? how.size[0]),
    columns: padded(resampled.columns, width ?? how.size[1]),
  };
  if ((height && height !== window.rows) || (width && width !== window.columns)) {
    throw new InputError(
      `takes slices of ${height ?? "any"} × ${width ?? "any"}, those of the volume have ${window.rows} × ${window.columns} after resampling`,
    );
  }
  if (window.rows * window.columns > MAX_PIXELS) {
    throw new InputError(
      `volume: a slice of at most ${MAX_PIXELS} pixels after resampling is segmented in the browser, got ${window.rows} × ${window.columns}`,
    );
  }
  return {
    count: shape[how.slice_axis]!,
    native: { rows: shape[down]!, columns: shape[across]! },
    resampled,
    window,
    offset: {
      rows: Math.floor((window.rows - resampled.rows) / 2),
      columns: Math.floor((window.columns - resampled.columns) / 2),
    },
    strides: stridesOf(volume.shape, transform, how.slice_axis, down, across),
  };
}

function stridesOf(
  shape: Triple,
  transform: [number, 1 | -1][],
  sliceAxis: number,
  down: number,
  across: number,
): Strides {
  const native = [1, shape[0], shape[0] * shape[1]];
  const steps: Triple = [0, 0, 0];
  let start = 0;
  transform.forEach(([axis, sign], arrayAxis) => {
    steps[axis] = sign * native[arrayAxis]!;
    if (sign < 0) start += (shape[arrayAxis]! - 1) * native[arrayAxis]!;
  });
  return { start, slice: steps[sliceAxis]!, down: steps[down]!, right: steps[across]! };
}

export class VolumeSlices {
  readonly grid: Grid;
  private readonly scalings: Scaling[];

  constructor(
    private readonly volume: Volume,
    private readonly about: Metadata,
  ) {
    const wanted = about.preprocessing.num_channels;
    if (volume.channels.length !== wanted) {
      throw new InputError(`volume: the number of channels must be ${wanted} as in training, got ${volume.channels.length}`);
    }
    this.grid = makeGrid(volume, about);
    this.scalings = volume.channels.map((channel) => channelScaling(channel, about.preprocessing));
  }

  /** Slices `first` to `first + count` with their neighbours as channels: `(count, channels, rows, columns)`, flat. */
  input(first: number, count: number): Float32Array<ArrayBuffer> {
    const { context_slices, num_channels } = this.about.preprocessing;
    const reach = (context_slices - 1) / 2;
    const area = this.grid.window.rows * this.grid.window.columns;
    const out = new Float32Array(count * context_slices * num_channels * area);
    let at = 0;
    for (let z = first; z < first + count; z++) {
      for (let k = -reach; k <= reach; k++) {
        const neighbour = Math.min(Math.max(z + k, 0), this.grid.count - 1);
        for (let channel = 0; channel < num_channels; channel++, at += area) {
          this.place(channel, neighbour, out.subarray(at, at + area));
        }
      }
    }
    return out;
  }

  private place(channel: number, z: number, out: Float32Array): void {
    const { native, resampled, window, offset, strides } = this.grid;
    const values = this.volume.channels[channel]!.values;
    const scaling = this.scalings[channel]!;
    const scale = scaler(scaling);
    const plane = new Float32Array(native.rows * native.columns);
    eachPixel(native, strides, z, (voxel, pixel) => (plane[pixel] = scale(values[voxel]!)));
    const resized = resizePlane(plane, native.rows, native.columns, resampled.rows, resampled.columns);
    out.fill(padValue(scaling));
    for (let r = 0; r < resampled.rows; r++) {
      const line = resized.subarray(r * resampled.columns, (r + 1) * resampled.columns);
      out.set(line, (r + offset.rows) * window.columns + offset.columns);
    }
  }
}

function eachPixel({ rows, columns }: Size, strides: Strides, z: number, visit: (voxel: number, pixel: number) => void): void {
  let pixel = 0;
  for (let r = 0; r < rows; r++) {
    let voxel = strides.start + z * strides.slice + r * strides.down;
    for (let c = 0; c < columns; c++, voxel += strides.right, pixel++) visit(voxel, pixel);
  }
}

/** Logits `(classes, rows, columns)` of slice `z` to class indices, written where its voxels lie in `labels`. */
export function restore(logits: Float32Array, numClasses: number, grid: Grid, z: number, labels: Voxels): void {
  const { native, resampled, window, offset, strides } = grid;
  const best = new Float32Array(native.rows * native.columns);
  const chosen = new Uint8Array(best.length);
  const inside = new Float32Array(resampled.rows * resampled.columns);
  for (let k = 0; k < numClasses; k++) {
    for (let r = 0; r < resampled.rows; r++) {
      const from = (k * window.rows + r + offset.rows) * window.columns + offset.columns;
      inside.set(logits.subarray(from, from + resampled.columns), r * resampled.columns);
    }
    const score = resizePlane(inside, resampled.rows, resampled.columns, native.rows, native.columns);
    if (k === 0) best.set(score);
    else {
      for (let i = 0; i < best.length; i++) {
        if (score[i]! > best[i]!) {
          best[i] = score[i]!;
          chosen[i] = k;
        }
      }
    }
  }
  eachPixel(native, strides, z, (voxel, pixel) => (labels[voxel] = chosen[pixel]!));
}
