/** The pixels of one uncompressed DICOM file: grey frames as their header means them. */

import type { DataSet } from "dicom-parser";
import { framesOf, textOf, wholeOf } from "./dicom_elements";
import { AGAIN, InputError, MAX_VOXELS, type Voxels } from "./volume";
import { thousands } from "./words";

const MAX_SIDE = 2 ** 15;
const QUANTITATIVE = ["CT", "PT"]; // modalities whose values have a unit, so that they are never inverted

interface Stored {
  frames: number;
  rows: number;
  columns: number;
  values: Voxels;
  range: number;
}

/** The values of all frames, as BitsStored and HighBit say, turned where the lowest value is white. */
export function stored(name: string, data: DataSet, little: boolean): Stored {
  const whole = (tag: string, missing: number): number => wholeOf(data, tag) ?? missing;
  const [rows, columns, bits] = [whole("x00280010", 0), whole("x00280011", 0), whole("x00280100", 0)];
  const frames = framesOf(data);
  const samples = whole("x00280002", 1);
  const sizes = rows >= 1 && rows <= MAX_SIDE && columns >= 1 && columns <= MAX_SIDE && frames >= 1 && Number.isInteger(frames);
  const photometric = textOf(data, "x00280004") ?? "MONOCHROME2";
  if (!["MONOCHROME1", "MONOCHROME2"].includes(photometric) || samples !== 1) {
    throw new InputError(
      `${name}: is a colour image (${photometric}, ${samples} samples a pixel), which is not read: ` +
        "leave it out, or write pictures as PNG",
    );
  }
  if (!sizes || ![8, 16, 32].includes(bits)) {
    throw new InputError(
      `${name}: must be grey frames of 8, 16 or 32 bits and at most ${MAX_SIDE} pixels a side, ` +
        `got ${frames} × ${rows} × ${columns} of ${bits} bits`,
    );
  }
  const count = frames * rows * columns;
  if (count > MAX_VOXELS) {
    throw new InputError(
      `${name}: at most ${thousands(MAX_VOXELS)} voxels are supported, the header says ${thousands(count)}`,
    );
  }
  const signed = whole("x00280103", 0);
  if (signed > 1) throw new InputError(`${name}: PixelRepresentation must be 0 or 1, got ${signed}; convert the series again`);
  if (data.elements["x00283000"]) {
    const advice = "convert the series with it applied";
    throw new InputError(`${name}: its values mean what a table says (ModalityLUTSequence), which is not read: ${advice}`);
  }
  const values = pixels(name, data, count, bits, signed === 1, little);
  checkPadding(name, data, values.byteLength, (columns * bits) / 8);
  asMeant(name, values, data, bits, signed === 1, photometric === "MONOCHROME1" && !QUANTITATIVE.includes(textOf(data, "x00080060") ?? ""));
  return { frames, rows, columns, values, range: 2 ** bits - 1 };
}

function pixels(name: string, data: DataSet, count: number, bits: number, signed: boolean, little: boolean): Voxels {
  const element = data.elements["x7fe00010"]!;
  const size = bits / 8;
  if (![undefined, "OB", "OW", "UN"].includes(element.vr)) throw new Error("PixelData: must be bytes");
  if (element.hadUndefinedLength) throw new InputError(`${name}: has pixels in fragments though they are not compressed; convert it again`);
  const present = Math.min(element.length, data.byteArray.length - element.dataOffset);
  if (present < count * size) {
    throw new InputError(
      `${name}: is cut short: its pixels need ${thousands(count * size)} bytes, the file has ${thousands(present)}; ${AGAIN}`,
    );
  }
  if (!little && size === 1 && element.vr === "OW") {
    const advice = "convert it to Little Endian, e.g. with dcmconv +te";
    throw new InputError(`${name}: has pixels of 8 bits in words of Big Endian, which are not read: ${advice}`);
  }
  const bytes = new Uint8Array(data.byteArray.subarray(element.dataOffset, element.dataOffset + count * size));
  if (!little) for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  const kinds = signed ? [Int8Array, Int16Array, Int32Array] : [Uint8Array, Uint16Array, Uint32Array];
  return new (kinds[Math.log2(size)] as new (buffer: ArrayBufferLike) => Voxels)(bytes.buffer);
}

/** Pixels beyond the header's are more than padding. */
function checkPadding(name: string, data: DataSet, needed: number, row: number): void {
  const present = data.elements["x7fe00010"]!.length;
  if (present - needed >= Math.max(row, 2)) {
    const said = `its pixels need ${thousands(needed)} bytes, the file has ${thousands(present)}`;
    throw new InputError(`${name}: has more pixels than its header names: ${said}; convert the series again`);
  }
}

/** Bits beyond BitsStored are no values; inverted: bright is high. */
function asMeant(name: string, values: Voxels, data: DataSet, allocated: number, signed: boolean, inverted: boolean): void {
  const bits = wholeOf(data, "x00280101") || allocated;
  const high = wholeOf(data, "x00280102") ?? bits - 1;
  if (bits > allocated || high < bits - 1 || high >= allocated) {
    throw new InputError(`${name}: BitsStored ${bits} and HighBit ${high} do not fit ${allocated} bits`);
  }
  const cut = bits < allocated;
  if (!cut && !inverted) return;
  const top = 2 ** bits - 1;
  for (let i = 0; i < values.length; i++) {
    let value = values[i]!;
    if (cut) value = signed ? (value << (31 - high)) >> (32 - bits) : (value << (31 - high)) >>> (32 - bits);
    values[i] = !inverted ? value : signed ? ~value : top - value;
  }
}
