/** Inputs unlike the training's: worth a warning before the labels are believed. */

import { spacingOf, type Volume, type Voxels } from "../scan/volume";
import { general } from "../scan/words";
import type { Metadata } from "./artefact";
import { orientationTransform, oriented } from "./geometry";

const FAR_SPACING = 1.5;
const FAR_EXTENT = 1.75;
const FAR_DEVIATION = 4;

/** One line for each way in which a volume is far outside the training's range, in the command line's words. */
export function warningsFor(volume: Volume, about: Metadata): string[] {
  const guessed =
    about.preprocessing.orientation !== null && !volume.isOriented
      ? ["the scan states no orientation, so that left and right of the label map are a guess [untrained-orientation]"]
      : [];
  return [...guessed, ...farFigures(volume, about)];
}

function farFigures(volume: Volume, about: Metadata): string[] {
  const { ranges } = about;
  if (!ranges) return [];
  if (ranges.unit !== "mm") {
    const text = `the input's spacing is in mm, that of the training in ${ranges.unit}: they cannot be compared [untrained-unit]`;
    return [text, ...intensities(volume, about)];
  }
  const transform = orientationTransform(volume.affine, about.preprocessing.orientation);
  const spacing = oriented(spacingOf(volume.affine), transform);
  const shape = oriented(volume.shape, transform);
  const far = (rule: string, what: string, values: number[], limits: [number, number][], factor: number): string[] =>
    values.flatMap((value, axis) => {
      const [low, high] = limits[axis]!;
      if (value >= low / factor && value <= high * factor) return [];
      return [`${what} along axis ${axis} (mm) is ${four(value)}, training had ${four(low)} to ${four(high)} [untrained-${rule}]`];
    });
  return [
    ...far("spacing", "spacing", spacing, ranges.spacing, FAR_SPACING),
    ...far("size", "extent", spacing.map((mm, axis) => mm * shape[axis]!), ranges.extent, FAR_EXTENT),
    ...intensities(volume, about),
  ];
}

function intensities(volume: Volume, about: Metadata): string[] {
  const { std, mean: means = [] } = about.ranges!;
  return volume.channels.flatMap(({ values }, channel) => {
    if (!std[channel]) return [];
    const [low, high] = std[channel];
    const [mean, deviation] = meanAndDeviation(values);
    const words = (what: string, value: number, [a, b]: [number, number]): string[] => [
      `${what} of intensities in channel ${channel} is ${four(value)}, training had ${four(a)} to ${four(b)} [untrained-intensity]`,
    ];
    if (!(deviation >= low / FAR_DEVIATION && deviation <= high * FAR_DEVIATION)) return words("deviation", deviation, [low, high]);
    if (!means[channel]) return [];
    const [least, most] = means[channel];
    const reach = Math.max(deviation, high);
    return mean >= least - reach && mean <= most + reach ? [] : words("mean", mean, [least, most]);
  });
}

function meanAndDeviation(values: Voxels): [number, number] {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  const mean = sum / values.length;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i]! - mean) ** 2;
  return [mean, Math.sqrt(squares / values.length)];
}

const four = (value: number): string => general(value, 4);
