/** The slices of one uncompressed DICOM file: one, or a frame each. Nothing of a header but geometry is kept. */

import { type DataSet, type Element, parseDicom } from "dicom-parser";
import { AGAIN, InputError, MAX_VOXELS, type Voxels } from "./volume";
import { thousands } from "./words";

const WITHOUT_A_PLACE = "; write radiographs and other pictures without a place in the patient as PNG or TIFF";

const IMPLICIT = "1.2.840.10008.1.2";
const EXPLICIT = "1.2.840.10008.1.2.1";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const MAX_FILE_BYTES = 2 ** 30;
const MAX_SIDE = 2 ** 15;
const QUANTITATIVE = ["CT", "PT"]; // modalities whose values have a unit, so that they are never inverted

export type Vector = [number, number, number];

export interface Slice {
  name: string;
  rows: number;
  columns: number;
  pixels: Voxels;
  /** Null where the values are rescaled. */
  integerRange: number | null;
  position: Vector;
  /** Along a row, and down a column. */
  directions: [Vector, Vector];
  /** Between rows, and between columns. */
  pixelMm: [number, number];
  thickness: number;
  series: string;
}

/** Elements by name; a frame's come from its functional groups. */
const TAGS = {
  ImagePositionPatient: "x00200032",
  ImageOrientationPatient: "x00200037",
  PixelSpacing: "x00280030",
  SliceThickness: "x00180050",
  SpacingBetweenSlices: "x00180088",
  RescaleSlope: "x00281053",
  RescaleIntercept: "x00281052",
} as const;
type Geometry = Partial<Record<keyof typeof TAGS, string>>;
const NEEDED = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"] as const;
const SHARED_GROUPS = "x52009229";
const FRAME_GROUPS = "x52009230";

/** Bytes 129 to 132 are DICM. */
export async function isDicom(file: File): Promise<boolean> {
  const mark = new Uint8Array(await file.slice(128, 132).arrayBuffer());
  return String.fromCharCode(...mark) === "DICM";
}

export async function readSlices(file: File): Promise<Slice[]> {
  if (file.size > MAX_FILE_BYTES) {
    const [most, size] = [thousands(MAX_FILE_BYTES), thousands(file.size)];
    throw new InputError(`${file.name}: a DICOM file of at most ${most} bytes is supported, got ${size}`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const syntax = transferSyntax(bytes);
  if (![IMPLICIT, EXPLICIT, BIG_ENDIAN].includes(syntax)) {
    const words = `the transfer syntax ${syntax || "of a damaged header"} is not read`;
    throw new InputError(`${file.name}: ${words}; decompress it, e.g. with dcmdjpeg`);
  }
  try {
    return slicesOf(file.name, parseDicom(bytes), syntax !== BIG_ENDIAN);
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

function slicesOf(name: string, data: DataSet, little: boolean): Slice[] {
  if (!data.elements["x7fe00010"] || data.uint16("x00280010") === undefined) {
    throw new InputError(`${name}: is no image of slices: the element PixelData is missing`);
  }
  const geometries = geometriesOf(name, data);
  const { frames, rows, columns, values, range } = stored(name, data, little);
  if (geometries.length !== frames) {
    throw new InputError(`${name}: says where ${geometries.length} of its ${frames} frames lie; a volume needs all`);
  }
  const size = rows * columns;
  return geometries.map((geometry, frame) => {
    const directions = numbers(name, geometry.ImageOrientationPatient, 6);
    const slope = Number(geometry.RescaleSlope) || 1;
    const intercept = Number(geometry.RescaleIntercept) || 0;
    const raw = values.subarray(frame * size, (frame + 1) * size);
    const plain = slope === 1 && intercept === 0;
    return {
      name,
      rows,
      columns,
      pixels: plain ? raw : Float32Array.from(raw, (value) => value * slope + intercept),
      integerRange: plain ? range : null,
      position: numbers(name, geometry.ImagePositionPatient, 3) as Vector,
      directions: [directions.slice(0, 3) as Vector, directions.slice(3) as Vector],
      pixelMm: numbers(name, geometry.PixelSpacing, 2) as [number, number],
      thickness: Number(geometry.SpacingBetweenSlices) || Number(geometry.SliceThickness) || 1,
      series: data.string("x0020000e") ?? "",
    };
  });
}

/** The elements that say where a frame lies and how its values are scaled, for each frame. */
function geometriesOf(name: string, data: DataSet): Geometry[] {
  const frames = data.elements[FRAME_GROUPS]?.items;
  if (!frames) {
    const count = data.intString("x00280008") || 1;
    if (count > 1) {
      throw new InputError(
        `${name}: has ${count} frames that do not say where they lie (no PerFrameFunctionalGroupsSequence)`,
      );
    }
    const geometry = elementsOf(data);
    const missing = NEEDED.find((element) => geometry[element] === undefined);
    if (missing) throw new InputError(`${name}: is no slice of a volume: the element ${missing} is missing${WITHOUT_A_PLACE}`);
    return [geometry];
  }
  const shared = inGroups(data.elements[SHARED_GROUPS]?.items?.[0]);
  return frames.map((frame) => {
    const geometry = { ...shared, ...inGroups(frame) };
    const missing = NEEDED.find((element) => geometry[element] === undefined);
    if (missing) throw new InputError(`${name}: is no slice of a volume: a frame lacks the element ${missing}`);
    return geometry;
  });
}

function inGroups(group: Element | undefined): Geometry {
  const sequences = Object.values(group?.dataSet?.elements ?? {});
  return Object.assign({}, ...sequences.map((sequence) => elementsOf(sequence.items?.[0]?.dataSet))) as Geometry;
}

function elementsOf(data: DataSet | undefined): Geometry {
  const found = Object.entries(TAGS).map(([name, tag]) => [name, data?.string(tag)] as const);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined)) as Geometry;
}

interface Stored {
  frames: number;
  rows: number;
  columns: number;
  values: Voxels;
  range: number;
}

/** The values of all frames, as BitsStored and HighBit say, turned where the lowest value is white. */
function stored(name: string, data: DataSet, little: boolean): Stored {
  const whole = (tag: string, missing: number): number => data.uint16(tag) ?? missing;
  const [rows, columns, bits] = [whole("x00280010", 0), whole("x00280011", 0), whole("x00280100", 0)];
  const frames = data.intString("x00280008") || 1;
  const samples = whole("x00280002", 1);
  const sizes = rows >= 1 && rows <= MAX_SIDE && columns >= 1 && columns <= MAX_SIDE && frames >= 1;
  const photometric = data.string("x00280004") ?? "MONOCHROME2";
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
  const signed = data.uint16("x00280103") === 1;
  const values = pixels(name, data, count, bits, signed, little);
  asMeant(values, data, bits, signed, photometric === "MONOCHROME1" && !QUANTITATIVE.includes(data.string("x00080060") ?? ""));
  return { frames, rows, columns, values, range: 2 ** bits - 1 };
}

function pixels(name: string, data: DataSet, count: number, bits: number, signed: boolean, little: boolean): Voxels {
  const element = data.elements["x7fe00010"]!;
  const size = bits / 8;
  const present = Math.min(element.length, data.byteArray.length - element.dataOffset);
  if (present < count * size) {
    throw new InputError(
      `${name}: is cut short: its pixels need ${thousands(count * size)} bytes, the file has ${thousands(present)}; ${AGAIN}`,
    );
  }
  const bytes = new Uint8Array(data.byteArray.subarray(element.dataOffset, element.dataOffset + count * size));
  if (!little) for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  const kinds = signed ? [Int8Array, Int16Array, Int32Array] : [Uint8Array, Uint16Array, Uint32Array];
  return new (kinds[Math.log2(size)] as new (buffer: ArrayBufferLike) => Voxels)(bytes.buffer);
}

/** Bits beyond BitsStored are no values; inverted: bright is high. */
function asMeant(values: Voxels, data: DataSet, allocated: number, signed: boolean, inverted: boolean): void {
  const bits = data.uint16("x00280101") || allocated;
  const high = data.uint16("x00280102") ?? bits - 1;
  const cut = bits >= 1 && bits < allocated && high >= bits - 1 && high < allocated;
  if (!cut && !inverted) return;
  const top = 2 ** allocated - 1;
  for (let i = 0; i < values.length; i++) {
    let value = values[i]!;
    if (cut) value = signed ? (value << (31 - high)) >> (32 - bits) : (value << (31 - high)) >>> (32 - bits);
    values[i] = !inverted ? value : signed ? ~value : top - value;
  }
}

function numbers(name: string, text: string | undefined, count: number): number[] {
  const values = (text ?? "").split("\\").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (values.length !== count || !values.every(Number.isFinite)) {
    throw new InputError(`${name}: cannot be read as DICOM: an element of its geometry is damaged`);
  }
  return values;
}
