/** How a channel's intensities are scaled: `(clip(x, low, high) - shift) / scale`. */

import type { Channel, Voxels } from "../scan/volume";
import type { Preprocessing } from "./artefact";

export interface Scaling {
  low: number;
  high: number;
  shift: number;
  scale: number;
}

const MAX_COUNTED_RANGE = 65535; // integers of up to 16 bits are counted instead of sorted

export function channelScaling(channel: Channel, how: Preprocessing): Scaling {
  const { values, integerRange } = channel;
  if (how.normalization === "ct") {
    const [low, high] = how.window;
    return { low, high, shift: (low + high) / 2, scale: (high - low) / 2 };
  }
  if (how.normalization === "none") {
    const [low, high] = extremes(values);
    return { low, high, shift: 0, scale: integerRange ?? 1 };
  }
  const counted = integerRange !== null && integerRange <= MAX_COUNTED_RANGE;
  const [low, high, mean, deviation] = counted ? byCounting(values, how.clip_percentiles) : bySorting(values, how.clip_percentiles);
  return { low, high, shift: mean, scale: deviation > 0 ? deviation : 1 };
}

/** What padding is filled with: air. */
export function padValue({ low, shift, scale }: Scaling): number {
  return Math.fround((low - shift) / scale);
}

function extremes(values: Voxels): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

type Statistics = [low: number, high: number, mean: number, deviation: number];

function byCounting(values: Voxels, percentiles: [number, number]): Statistics {
  const [least, greatest] = extremes(values);
  const counts = new Float64Array(greatest - least + 1);
  for (let i = 0; i < values.length; i++) counts[values[i]! - least]!++;
  const atRank = (rank: number): number => {
    let below = 0;
    let k = 0;
    while ((below += counts[k]!) <= rank) k++;
    return least + k;
  };
  const [low, high] = percentiles.map((p) => between(values.length, p, atRank)) as [number, number];
  const clipped = (k: number): number => Math.min(Math.max(least + k, low), high);
  const weighted = (f: (k: number) => number): number => counts.reduce((sum, count, k) => sum + f(k) * count, 0) / values.length;
  const mean = weighted(clipped);
  return [low, high, mean, Math.sqrt(weighted((k) => (clipped(k) - mean) ** 2))];
}

function bySorting(values: Voxels, percentiles: [number, number]): Statistics {
  const sorted = values.slice().sort();
  const [low, high] = percentiles.map((p) => between(values.length, p, (rank) => sorted[rank]!)) as [number, number];
  const real = values instanceof Float32Array;
  const [least, most] = real ? [Math.fround(low), Math.fround(high)] : [low, high];
  let sum = 0;
  for (let i = 0; i < sorted.length; i++) sum += Math.min(Math.max(sorted[i]!, least), most);
  const mean = sum / sorted.length;
  let squares = 0;
  for (let i = 0; i < sorted.length; i++) squares += (Math.min(Math.max(sorted[i]!, least), most) - mean) ** 2;
  return [low, high, mean, Math.sqrt(squares / sorted.length)];
}

/** Linear between the two ranks next to the percentile. */
function between(count: number, percentile: number, atRank: (rank: number) => number): number {
  const rank = (count - 1) * (percentile / 100);
  const below = Math.floor(rank);
  const [first, second] = [atRank(below), atRank(Math.min(below + 1, count - 1))];
  const share = rank - below;
  return share >= 0.5 ? second - (second - first) * (1 - share) : first + (second - first) * share;
}

/** Clips and scales one value; the arithmetic is float32's. */
export function scaler({ low, high, shift, scale }: Scaling): (value: number) => number {
  const round = Math.fround;
  const [least, most, middle, width] = [round(low), round(high), round(shift), round(scale)];
  return (value) => round(round(Math.min(Math.max(round(value), least), most) - middle) / width);
}
