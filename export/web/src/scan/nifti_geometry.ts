/** Geometry of a NIfTI header: sform, qform, voxel sizes, codes and units, which files often fill in against each other. */

import type { NIFTI1, NIFTI2 } from "nifti-reader-js";
import { axisCodes } from "../network/geometry";
import { determinant, type GridCodes, InputError, type Matrix, spacingOf, type Triple } from "./volume";
import { general } from "./words";

export type Header = NIFTI1 | NIFTI2;

const SAME_SPACING = 0.01; // relative difference up to which two spacings are one, rounded differently
const LAST_CODE = 5; // of qform and sform
const UNIT_MM: Record<number, number> = { 0: 1, 1: 1000, 2: 1, 3: 0.001 };
const UNIT_NAMES: Record<number, string> = { 1: "metres", 3: "micrometres" };
const MAX_CONVERTED_MM = 50; // no scan has larger voxels, so a unit that makes them is a mistake

export interface Geometry {
  affine: Matrix;
  /** False where the header has neither sform nor qform. */
  isOriented: boolean;
  codes: GridCodes;
}

/** start: the header's bytes, for the sform whatever the codes are: the library gives the affine of one form alone. */
export function geometryOf(name: string, header: Header, start: Uint8Array): Geometry {
  const codes = codesOf(header, start);
  const isOriented = codes.sformCode !== 0 || codes.qformCode !== 0;
  const rounding = 3 * (isVersion2(header, start) ? Number.EPSILON : 2 ** -23); // of a quaternion, in the header's own precision
  const affine =
    codes.sformCode !== 0 ? checkedSform(name, codes, rounding) : isOriented ? qform(name, codes, rounding) : withoutCodes(header, codes);
  return { affine: inMm(name, affine, header.xyzt_units & 7), isOriented, codes };
}

function codesOf(header: Header, start: Uint8Array): GridCodes {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const is2 = isVersion2(header, start);
  const known = (code: number): number => (code >= 0 && code <= LAST_CODE ? code : 0);
  const [qfac = 1, dx = 1, dy = 1, dz = 1] = header.pixDims;
  const [length, time] = [header.xyzt_units & 7, header.xyzt_units & 0x38];
  return {
    qformCode: known(header.qform_code),
    sformCode: known(header.sform_code),
    units: (length in UNIT_MM ? length : 0) | time,
    pixdim: [qfac === -1 ? -1 : 1, sizeOf(dx), sizeOf(dy), sizeOf(dz)],
    quaternion: [header.quatern_b, header.quatern_c, header.quatern_d, header.qoffset_x, header.qoffset_y, header.qoffset_z],
    sform: Array.from({ length: 12 }, (_, i) =>
      is2 ? view.getFloat64(400 + 8 * i, header.littleEndian) : view.getFloat32(280 + 4 * i, header.littleEndian),
    ),
  };
}

function isVersion2(header: Header, start: Uint8Array): boolean {
  return new DataView(start.buffer, start.byteOffset, start.byteLength).getInt32(0, header.littleEndian) === 540;
}

/** A voxel size as the command line mends it: 0 says nothing. */
function sizeOf(size: number): number {
  return size === 0 ? 1 : Math.abs(size);
}

/** The sform, unless it contradicts the other reading of the header. */
function checkedSform(name: string, codes: GridCodes, rounding: number): Matrix {
  const rows = codes.sform;
  const sform = [rows.slice(0, 4), rows.slice(4, 8), rows.slice(8, 12), [0, 0, 0, 1]];
  const other = rows.every(Number.isFinite) && determinant(sform) !== 0 ? otherReading(name, codes, sform, rounding) : null;
  const difference = other && differenceOf(sform, other, codes.qformCode !== 0);
  if (difference) throw new InputError(`${name}: ${difference}; attunet predict reads it with --read nifti-geometry=sform or pixdim`);
  return sform;
}

/** By qform and voxel sizes, or by the sform's directions and voxel sizes; null where the header has no such reading. */
function otherReading(name: string, codes: GridCodes, sform: Matrix, rounding: number): Matrix | null {
  const zooms = codes.pixdim.slice(1);
  if (!zooms.every((size) => Number.isFinite(size) && size > 0)) return null;
  if (codes.qformCode !== 0) {
    try {
      const other = qform(name, codes, rounding);
      return other.flat().every(Number.isFinite) ? other : null;
    } catch {
      return null;
    }
  }
  if (zooms.every((size) => size === 1)) return null; // never filled in
  const lengths = spacingOf(sform);
  return sform.map((row, r) => (r < 3 ? row.map((value, c) => (c < 3 ? (value * zooms[c]!) / lengths[c]! : value)) : row));
}

function differenceOf(sform: Matrix, other: Matrix, hasQform: boolean): string {
  const [first, second] = [spacingOf(sform), spacingOf(other)];
  if (first.some((size, axis) => Math.abs(size - second[axis]!) > SAME_SPACING * Math.min(size, second[axis]!))) {
    const [one, two] = [first, second].map((spacing) => spacing.map((size) => general(size, 4)).join(" × "));
    return `the sform has voxels of ${one} mm, ${hasQform ? "qform and pixdim" : "pixdim"} of ${two} mm`;
  }
  const [one, two] = [axisCodes(sform), axisCodes(other)];
  return one === two ? "" : `the axes run to ${one} by the sform, to ${two} by the ${hasQform ? "qform" : "pixdim"}`;
}

/** Voxel sizes around the centre, axes to left, anterior and superior. */
function withoutCodes(header: Header, { pixdim: [, dx, dy, dz] }: GridCodes): Matrix {
  const [nx, ny, nz] = [1, 2, 3].map((i) => (header.dims[0]! >= i ? header.dims[i]! : 1)) as Triple;
  return [
    [-dx, 0, 0, (dx * (nx - 1)) / 2],
    [0, dy, 0, (-dy * (ny - 1)) / 2],
    [0, 0, dz, (-dz * (nz - 1)) / 2],
    [0, 0, 0, 1],
  ];
}

function qform(name: string, { pixdim, quaternion }: GridCodes, rounding: number): Matrix {
  const [b, c, d, x, y, z] = quaternion as [number, number, number, number, number, number];
  const rest = 1 - (b * b + c * c + d * d);
  if (rest <= -rounding) {
    const shown = rest.toExponential(6).replace(/(?<=e[+-])\d$/, "0$&"); // two digits at least, as Python writes it
    throw new InputError(`${name}: cannot be read as NIfTI: w2 should be positive, but is ${shown}`);
  }
  const a = rest < rounding ? 0 : Math.sqrt(rest);
  const scale = 2 / (a * a + b * b + c * c + d * d);
  const [, dx, dy] = pixdim;
  const dz = pixdim[3] * pixdim[0];
  return [
    [(1 - scale * (c * c + d * d)) * dx, scale * (b * c - a * d) * dy, scale * (b * d + a * c) * dz, x],
    [scale * (b * c + a * d) * dx, (1 - scale * (b * b + d * d)) * dy, scale * (c * d - a * b) * dz, y],
    [scale * (b * d - a * c) * dx, scale * (c * d + a * b) * dy, (1 - scale * (b * b + c * c)) * dz, z],
    [0, 0, 0, 1],
  ];
}

function inMm(name: string, affine: Matrix, unit: number): Matrix {
  const factor = UNIT_MM[unit] ?? 1;
  if (factor === 1) return affine;
  const spacing = spacingOf(affine);
  if (Math.max(...spacing) * factor > MAX_CONVERTED_MM) {
    const shown = spacing.map((size) => general(size, 4)).join(" × ");
    throw new InputError(
      `${name}: the header says ${UNIT_NAMES[unit]}, so that voxels of ${shown} would be ${general(factor, 6)} times as large in mm; ` +
        "attunet predict reads it with --read nifti-units=mm or convert",
    );
  }
  return affine.map((row, r) => (r < 3 ? row.map((value) => value * factor) : row));
}
