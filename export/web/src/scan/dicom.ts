/** One DICOM series of uncompressed slices. Nothing of a header but geometry is kept. */

import { type DataSet, parseDicom } from "dicom-parser";
import { checkedAffine, InputError, type Matrix, MAX_VOXELS, type Volume, type Voxels } from "./volume";
import { general, thousands } from "./words";

const IMPLICIT = "1.2.840.10008.1.2";
const EXPLICIT = "1.2.840.10008.1.2.1";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const MAX_FILE_BYTES = 2 ** 30;
const MAX_SLICES = 16384;
const MAX_SIDE = 2 ** 15;
const GAP_TOLERANCE = 0.1; // of the slice spacing
const DIRECTION_TOLERANCE = 1e-3;

type Vector = [number, number, number];

interface Slice {
  name: string;
  rows: number;
  columns: number;
  pixels: Voxels;
  integerRange: number | null;
  position: Vector;
  /** Along a row, and down a column. */
  directions: [Vector, Vector];
  /** Between rows, and between columns. */
  pixelMm: [number, number];
  thickness: number;
  series: string;
}

/** Bytes 129 to 132 are DICM. */
export async function isDicom(file: File): Promise<boolean> {
  const mark = new Uint8Array(await file.slice(128, 132).arrayBuffer());
  return String.fromCharCode(...mark) === "DICM";
}

/** The one series in `files`, all with DICOM's mark; X along a row's columns, Y down the rows, Z along the normal. */
export async function readSeries(name: string, files: readonly File[]): Promise<Volume> {
  if (files.length > MAX_SLICES) throw new InputError(`${name}: at most ${MAX_SLICES} slices are supported, got ${files.length}`);
  const slices: Slice[] = [];
  let voxels = 0;
  for (const file of [...files].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    slices.push(await readSlice(file));
    voxels += slices.at(-1)!.pixels.length;
    if (voxels > MAX_VOXELS) throw new InputError(`${name}: at most ${thousands(MAX_VOXELS)} voxels are supported`);
  }
  const [ordered, affine] = inOrder(name, slices);
  const first = ordered[0]!;
  const real = ordered.some((slice) => slice.integerRange === null);
  const alike = ordered.every((slice) => slice.pixels.constructor === first.pixels.constructor);
  const kind = (alike ? first.pixels.constructor : Float32Array) as new (n: number) => Voxels;
  const values = new kind(voxels);
  ordered.forEach((slice, z) => values.set(slice.pixels, z * slice.pixels.length));
  return {
    channels: [{ values, integerRange: real || !alike ? null : first.integerRange }],
    shape: [first.columns, first.rows, ordered.length],
    affine: checkedAffine(name, affine),
    codes: null,
  };
}

async function readSlice(file: File): Promise<Slice> {
  if (file.size > MAX_FILE_BYTES) {
    const [most, size] = [thousands(MAX_FILE_BYTES), thousands(file.size)];
    throw new InputError(`${file.name}: a DICOM file of at most ${most} bytes is supported, got ${size}`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const syntax = transferSyntax(bytes);
  if (![IMPLICIT, EXPLICIT, BIG_ENDIAN].includes(syntax)) {
    throw new InputError(`${file.name}: must be uncompressed, got the transfer syntax ${syntax || "of a damaged header"}`);
  }
  try {
    return sliceOf(file.name, parseDicom(bytes), syntax !== BIG_ENDIAN);
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${file.name}: cannot be read as DICOM: its header is damaged`); // the library's words may quote a patient
  }
}

/** A UID or nothing, from the meta group alone: a deflated file would be inflated without a bound. */
function transferSyntax(bytes: Uint8Array): string {
  const long = ["OB", "OW", "OF", "OD", "OL", "SQ", "UN", "UT", "UC", "UR"];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let uid = "";
  let at = 132;
  while (at + 8 <= bytes.length && view.getUint16(at, true) === 2) {
    const element = view.getUint16(at + 2, true);
    const kind = String.fromCharCode(bytes[at + 4]!, bytes[at + 5]!);
    let length = view.getUint16(at + 6, true);
    at += 8;
    if (long.includes(kind)) {
      if (at + 4 > bytes.length) return "";
      length = view.getUint32(at, true);
      at += 4;
    }
    if (element === 0x10) uid = String.fromCharCode(...bytes.subarray(at, Math.min(at + length, at + 80))).replace(/[\0 ]+$/, "");
    at += length;
  }
  return /^[0-9.]{1,64}$/.test(uid) ? uid : "";
}

function sliceOf(name: string, data: DataSet, little: boolean): Slice {
  const whole = (tag: string, missing?: number): number => data.uint16(tag) ?? missing ?? damaged(name);
  const [rows, columns, bits] = [whole("x00280010"), whole("x00280011"), whole("x00280100")];
  const frames = data.intString("x00280008") || 1;
  const samples = whole("x00280002", 1);
  const sizes = rows >= 1 && rows <= MAX_SIDE && columns >= 1 && columns <= MAX_SIDE;
  if (!sizes || frames !== 1 || samples !== 1 || ![8, 16, 32].includes(bits)) {
    throw new InputError(
      `${name}: must be one grey frame of 8, 16 or 32 bits and at most ${MAX_SIDE} pixels a side, ` +
        `got ${frames} × ${rows} × ${columns} with ${samples} samples of ${bits} bits`,
    );
  }
  if (!["MONOCHROME1", "MONOCHROME2"].includes(data.string("x00280004") ?? "MONOCHROME2")) {
    throw new InputError(`${name}: must be grey (MONOCHROME1 or MONOCHROME2)`);
  }
  const { pixels, range } = pixelsOf(name, data, rows * columns, bits, little, `${rows} × ${columns}`);
  const directions = numbers(name, data, "x00200037", 6);
  return {
    name,
    rows,
    columns,
    pixels,
    integerRange: range,
    position: numbers(name, data, "x00200032", 3) as Vector,
    directions: [directions.slice(0, 3) as Vector, directions.slice(3) as Vector],
    pixelMm: numbers(name, data, "x00280030", 2) as [number, number],
    thickness: data.floatString("x00180088") || data.floatString("x00180050") || 1,
    series: data.string("x0020000e") ?? "",
  };
}

function pixelsOf(
  name: string,
  data: DataSet,
  count: number,
  bits: number,
  little: boolean,
  words: string,
): { pixels: Voxels; range: number | null } {
  const element = data.elements["x7fe00010"] ?? damaged(name);
  const needed = (count * bits) / 8;
  const present = Math.min(element.length, data.byteArray.length - element.dataOffset);
  if (present < needed) {
    throw new InputError(
      `${name}: is cut short: ${words} pixels need ${thousands(needed)} bytes, the file has ${thousands(present)}`,
    );
  }
  const bytes = new Uint8Array(data.byteArray.subarray(element.dataOffset, element.dataOffset + needed));
  const size = bits / 8;
  if (!little) for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  const signed = data.uint16("x00280103") === 1;
  const kinds = signed ? [Int8Array, Int16Array, Int32Array] : [Uint8Array, Uint16Array, Uint32Array];
  const raw = new (kinds[Math.log2(size)] as new (buffer: ArrayBufferLike) => Voxels)(bytes.buffer);
  const slope = data.floatString("x00281053") || 1;
  const intercept = data.floatString("x00281052") || 0;
  if (slope === 1 && intercept === 0) return { pixels: raw, range: 2 ** bits - 1 };
  const pixels = new Float32Array(count);
  for (let i = 0; i < count; i++) pixels[i] = raw[i]! * slope + intercept;
  return { pixels, range: null };
}

function numbers(name: string, data: DataSet, tag: string, count: number): number[] {
  const values = (data.string(tag) ?? "").split("\\").map((text) => (text.trim() === "" ? Number.NaN : Number(text)));
  if (values.length !== count || !values.every(Number.isFinite)) damaged(name);
  return values;
}

function damaged(name: string): never {
  throw new InputError(`${name}: cannot be read as DICOM: an element of its geometry is missing or damaged`);
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
  const affine = [0, 1, 2].map((axis) => {
    const row = [u[axis]! * first.pixelMm[1], v[axis]! * first.pixelMm[0], step[axis]!, origin[axis]!];
    return axis < 2 ? row.map((value) => -value) : row; // DICOM's left and posterior to right and anterior
  });
  return [slices, [...affine, [0, 0, 0, 1]]];
}

function checkAlike(name: string, first: Slice, other: Slice): void {
  if (other.series !== first.series) {
    throw new InputError(`${name}: the folder must hold one series, ${other.name} is of another than ${first.name}`);
  }
  const near = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-8 + 1e-4 * Math.abs(b);
  const sameGrid =
    other.rows === first.rows && other.columns === first.columns && other.pixelMm.every((mm, i) => near(mm, first.pixelMm[i]!));
  const turn = Math.max(...other.directions.flat().map((value, i) => Math.abs(value - first.directions.flat()[i]!)));
  if (!sameGrid || turn > DIRECTION_TOLERANCE) {
    throw new InputError(`${name}: slices must agree in size, spacing and direction, ${other.name} differs from ${first.name}`);
  }
}

function checkGaps(name: string, slices: Slice[], normal: Vector): void {
  const gaps = slices.slice(1).map((slice, i) => dot(slice.position, normal) - dot(slices[i]!.position, normal));
  const sorted = [...gaps].sort((a, b) => a - b);
  const typical = (sorted[(gaps.length - 1) >> 1]! + sorted[gaps.length >> 1]!) / 2;
  const least = gaps.indexOf(sorted[0]!);
  if (sorted[0]! <= 1e-3) {
    throw new InputError(`${name}: two slices lie in the same place, ${slices[least]!.name} and ${slices[least + 1]!.name}`);
  }
  const apart = gaps.map((gap) => Math.abs(gap - typical));
  const worst = apart.indexOf(Math.max(...apart));
  if (apart[worst]! > GAP_TOLERANCE * typical) {
    const [a, b] = [slices[worst]!.name, slices[worst + 1]!.name];
    const mm = (value: number): string => general(value, 6);
    throw new InputError(
      `${name}: slices must be evenly spaced, ${mm(typical)} mm apart, but ${a} and ${b} are ${mm(gaps[worst]!)} mm apart: is one missing?`,
    );
  }
}
