/** The slices of one uncompressed DICOM file: one, or a frame each. Nothing of a header but geometry is kept. */

import { type DataSet, type Element, parseDicom } from "dicom-parser";
import { DECIMALS, decimalsOf, doubleOf, framesOf, itemsOf, textOf, wholeOf } from "./dicom_elements";
import { stored } from "./dicom_pixels";
import { InputError, type Voxels } from "./volume";
import { general, thousands } from "./words";

const WITHOUT_A_PLACE = "; write radiographs and other pictures without a place in the patient as PNG or TIFF";

const IMPLICIT = "1.2.840.10008.1.2";
const EXPLICIT = "1.2.840.10008.1.2.1";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const MAX_FILE_BYTES = 2 ** 30;

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
  /** What the slices of a volume have in common, by the names of `COMMON`; empty where it is missing. */
  common: Record<string, string>;
}

export const COMMON = {
  SeriesInstanceUID: "x0020000e",
  StudyInstanceUID: "x0020000d",
  PatientID: "x00100020",
  IssuerOfPatientID: "x00100021",
  PatientName: "x00100010",
  PatientBirthDate: "x00100030",
  Modality: "x00080060",
  EchoNumbers: "x00180086",
  EchoTime: "x00180081",
  PhotometricInterpretation: "x00280004",
  BitsStored: "x00280101",
} as const;

const PLACE = { ImagePositionPatient: "x00200032" } as const;
const ORIENTATION = { ImageOrientationPatient: "x00200037" } as const;
const MEASURES = { PixelSpacing: "x00280030", SliceThickness: "x00180050", SpacingBetweenSlices: "x00180088" } as const;
const SCALING = { RescaleSlope: "x00281053", RescaleIntercept: "x00281052" } as const;
const GEOMETRY = { ...PLACE, ...ORIENTATION, ...MEASURES, ...SCALING };
/** Functional groups of a file of many frames, with the elements that are read. */
const GROUPS = { x00209113: PLACE, x00209116: ORIENTATION, x00289110: MEASURES, x00289145: SCALING } as const;
type Geometry = Partial<Record<keyof typeof GEOMETRY, number[]>>;
const NEEDED = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"] as const;
const MAX_SKEW = 5e-3; // of the directions' lengths from 1, and of their cosine from 0: headers round
const DERIVED = ["RTDOSE", "RTIMAGE", "SEG", "PR", "KO"]; // modalities of objects with pixels that are no scan
const SHARED_GROUPS = "x52009229";
const FRAME_GROUPS = "x52009230";
const [ECHO_GROUP, ECHO_TIME] = ["x00189114", "x00189082"];

/** Bytes 129 to 132 are DICM. Raises InputError for DICOM without these first 132 bytes, whose slices would be left out. */
export async function isDicom(file: File): Promise<boolean> {
  const start = new Uint8Array(await file.slice(0, 132).arrayBuffer());
  const letters = String.fromCharCode(...start);
  if (letters.slice(128) === "DICM") return true;
  const named = /^[A-Z]{2}$/.test(letters.slice(4, 6));
  const short = start.length >= 16 && new DataView(start.buffer).getUint32(4, true) <= 64;
  if (start.length >= 16 && start[3] === 0 && (letters.startsWith("\b\0") ? named || short : letters.startsWith("\x02\0") && named)) {
    throw new InputError(`${file.name}: is DICOM without its first 132 bytes, which attunet predict reads and this page does not`);
  }
  return false;
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

/** A file's values of `COMMON`; BitsStored where values are inverted within them, and EchoTime to a hundredth of a ms. */
function commonOf(data: DataSet): Record<string, string> {
  const valueOf = (element: string, tag: string) =>
    element === "BitsStored" ? wholeOf(data, tag) : textOf(data, tag, element.startsWith("Echo") ? DECIMALS : undefined);
  const values = Object.fromEntries(Object.entries(COMMON).map(([element, tag]) => [element, `${valueOf(element, tag) ?? ""}`]));
  const time = Number(values.EchoTime || NaN);
  if (Number.isFinite(time)) values.EchoTime = inMs(time);
  return values.PhotometricInterpretation === "MONOCHROME1" ? values : { ...values, BitsStored: "" };
}

function slicesOf(name: string, data: DataSet, little: boolean): Slice[] {
  if (!data.elements["x7fe00010"] || wholeOf(data, "x00280010") === undefined) {
    throw new InputError(`${name}: is no image of slices: the element PixelData is missing`);
  }
  const modality = textOf(data, COMMON.Modality) ?? "";
  if (DERIVED.includes(modality)) throw new InputError(`${name}: is no image of slices: its modality is ${modality}; leave it out`);
  if (textOf(data, "x00080008")?.includes("MOSAIC")) {
    const advice = "convert it to NIfTI, e.g. with dcm2niix";
    throw new InputError(`${name}: is a mosaic, one picture of all slices of a volume, which is not read: ${advice}`);
  }
  const geometries = geometriesOf(name, data);
  const { frames, rows, columns, values, range } = stored(name, data, little);
  if (geometries.length !== frames) {
    throw new InputError(`${name}: says where ${geometries.length} of its ${frames} frames lie; a volume needs all`);
  }
  const size = rows * columns;
  return geometries.map((geometry, frame) => {
    const directions = numbers(name, geometry.ImageOrientationPatient, 6);
    checkDirections(name, directions);
    const pixelMm = numbers(name, geometry.PixelSpacing, 2) as [number, number];
    if (Math.min(...pixelMm) <= 0) {
      const [vertical, horizontal] = pixelMm.map((mm) => general(mm, 6));
      throw new InputError(`${name}: PixelSpacing must be above 0 mm, got ${vertical} and ${horizontal}`);
    }
    const [slope, intercept] = scaling(name, geometry);
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
      pixelMm,
      thickness: Math.abs(one(name, geometry.SpacingBetweenSlices) || one(name, geometry.SliceThickness) || 1),
      common: commonOf(data),
    };
  });
}

function checkDirections(name: string, [a, b, c, d, e, f]: number[]): void {
  const skew = [a! * a! + b! * b! + c! * c! - 1, d! * d! + e! * e! + f! * f! - 1, a! * d! + b! * e! + c! * f!];
  if (Math.max(...skew.map(Math.abs)) > MAX_SKEW) {
    const rule = "must be two directions of length 1 at right angles";
    throw new InputError(`${name}: ImageOrientationPatient ${rule}; convert the series again from the scanner's export`);
  }
}

/** Slope and intercept, with which float32 tells stored values apart. */
function scaling(name: string, geometry: Geometry): [number, number] {
  const slope = one(name, geometry.RescaleSlope) ?? 1;
  const intercept = one(name, geometry.RescaleIntercept) ?? 0;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(intercept))), -126);
  if (!(Math.abs(slope) >= 2 ** (exponent - 23))) {
    const got = `got ${general(slope, 6)} with RescaleIntercept ${general(intercept, 6)}`;
    throw new InputError(`${name}: RescaleSlope must tell values apart, ${got}; convert the series again`);
  }
  return [slope, intercept];
}

/** The elements that say where a frame lies and how its values are scaled, for each frame. */
function geometriesOf(name: string, data: DataSet): Geometry[] {
  const frames = itemsOf(data, FRAME_GROUPS);
  if (!frames) {
    const count = framesOf(data);
    if (count > 1) {
      throw new InputError(
        `${name}: has ${count} frames that do not say where they lie (no PerFrameFunctionalGroupsSequence)`,
      );
    }
    const geometry = elementsOf(data, GEOMETRY);
    const missing = NEEDED.find((element) => geometry[element] === undefined);
    if (missing) throw new InputError(`${name}: is no slice of a volume: the element ${missing} is missing${WITHOUT_A_PLACE}`);
    return [geometry];
  }
  const common = itemsOf(data, SHARED_GROUPS)?.[0];
  if (new Set(frames.map((frame) => echoTimeOf(frame) ?? echoTimeOf(common))).size > 1) {
    const advice = "convert it to a NIfTI file for each, e.g. with dcm2niix";
    throw new InputError(`${name}: has frames of several echoes (EffectiveEchoTime): ${advice}`);
  }
  const shared = { ...elementsOf(data, SCALING), ...inGroups(common) };
  return frames.map((frame) => {
    const geometry = { ...shared, ...inGroups(frame) };
    const missing = NEEDED.find((element) => geometry[element] === undefined);
    if (missing) throw new InputError(`${name}: is no slice of a volume: a frame lacks the element ${missing}`);
    return geometry;
  });
}

/** A time as text, rounded as headers round it, without the noise of float32 first. */
function inMs(time: number): string {
  return Number(time.toFixed(4)).toFixed(2);
}

/** The time of a frame's echo, to a hundredth of a ms. */
function echoTimeOf(group: Element | undefined): string | undefined {
  const item = itemsOf(group?.dataSet, ECHO_GROUP)?.[0]?.dataSet;
  const time = item && doubleOf(item, ECHO_TIME);
  return time === undefined ? undefined : inMs(time);
}

function inGroups(group: Element | undefined): Geometry {
  const parts = Object.entries(GROUPS).map(([sequence, tags]) => {
    const item = itemsOf(group?.dataSet, sequence)?.[0]?.dataSet;
    return item ? elementsOf(item, tags) : {};
  });
  return Object.assign({}, ...parts) as Geometry;
}

function elementsOf(data: DataSet, tags: Partial<Record<keyof Geometry, string>>): Geometry {
  const values = Object.entries(tags).map(([name, tag]) => [name, decimalsOf(data, tag)] as const);
  return Object.fromEntries(values.filter(([, numbers]) => numbers !== undefined)) as Geometry;
}

function numbers(name: string, values: number[] | undefined, count: number): number[] {
  if (values?.length !== count || !values.every(Number.isFinite)) {
    throw new InputError(`${name}: cannot be read as DICOM: an element of its geometry is damaged`);
  }
  return values;
}

/** The number of an element that may be missing or blank. */
function one(name: string, values: number[] | undefined): number | undefined {
  return values?.length ? numbers(name, values, 1)[0] : undefined;
}
