/** The generated input that an artefact carries, and how near this machine comes to the answer that it got at export. */

import type { Metadata } from "../network/artefact";
import type { Network } from "../network/segment";

function floats(base64: string): Float32Array<ArrayBuffer> {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** Root mean square of the difference as a share of the tolerance; null where the artefact carries no input. */
export async function goldenDifference(network: Network, about: Metadata): Promise<number | null> {
  const { golden } = about;
  if (!("slices" in golden)) return null;
  const [count, channels, rows, columns] = golden.slices.shape as [number, number, number, number];
  const logits = await network(floats(golden.slices.float32_base64), [count, channels, rows, columns]);
  const wanted = floats(golden.logits.float32_base64);
  const [, classes, , width] = golden.logits.shape as [number, number, number, number];
  const height = wanted.length / classes / width;
  let [difference, total] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    const [k, r, c] = [Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width];
    const got = logits[(k * rows + r * golden.stride) * columns + c * golden.stride]!;
    difference += (got - wanted[i]!) ** 2;
    total += wanted[i]! ** 2;
  }
  return Math.sqrt(difference / total) / golden.tolerance;
}
