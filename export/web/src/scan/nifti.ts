/** NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read. */

import { type NIFTI1, type NIFTI2, readHeader } from "nifti-reader-js";
import { Reader } from "./gzip";
import {
  type Channel,
  checkedAffine,
  type GridCodes,
  InputError,
  type Matrix,
  MAX_VOXELS,
  type Triple,
  type Volume,
  type Voxels,
} from "./volume";
import { general, thousands } from "./words";

type Header = NIFTI1 | NIFTI2;

const HEADER_BYTES = 544;
const MAX_VOXEL_OFFSET = 2 ** 24; // header extensions before the voxels
const LARGEST_GZIP_RATIO = 1040; // deflate cannot shrink further than 1032 to 1

interface DataType {
  bytes: number;
  range: number | null;
  view: (buffer: ArrayBuffer) => Voxels;
}

const wide = (values: BigInt64Array | BigUint64Array): Float64Array => Float64Array.from(values, Number);
const TYPES: Record<number, DataType> = {
  2: { bytes: 1, range: 255, view: (b) => new Uint8Array(b) },
  256: { bytes: 1, range: 255, view: (b) => new Int8Array(b) },
  4: { bytes: 2, range: 65535, view: (b) => new Int16Array(b) },
  512: { bytes: 2, range: 65535, view: (b) => new Uint16Array(b) },
  8: { bytes: 4, range: 2 ** 32 - 1, view: (b) => new Int32Array(b) },
  768: { bytes: 4, range: 2 ** 32 - 1, view: (b) => new Uint32Array(b) },
  1024: { bytes: 8, range: 2 ** 64, view: (b) => wide(new BigInt64Array(b)) },
  1280: { bytes: 8, range: 2 ** 64, view: (b) => wide(new BigUint64Array(b)) },
  16: { bytes: 4, range: null, view: (b) => new Float32Array(b) },
  64: { bytes: 8, range: null, view: (b) => Float32Array.from(new Float64Array(b)) },
};

/** The file's voxels; `channels` are how many the network takes: a fourth axis of that length holds them. */
export async function readNifti(file: File, channels: number): Promise<Volume> {
  const gzipped = file.name.toLowerCase().endsWith(".gz");
  const reader = new Reader(file, gzipped);
  try {
    const start = await reader.take(HEADER_BYTES);
    const header = parse(file.name, start);
    const [shape, frames] = checkedShape(file, header, channels, gzipped);
    const type = TYPES[header.datatypeCode]!;
    const offset = Math.trunc(header.vox_offset);
    const needed = shape[0] * shape[1] * shape[2] * frames * type.bytes;
    const bytes = await reader.span(offset, needed);
    await reader.toTheEnd();
    if (bytes.byteLength < needed) {
      const words = `Expected ${needed} bytes, got ${bytes.byteLength} bytes: could the file be damaged?`;
      throw new InputError(`${file.name}: cannot be read as NIfTI: ${words}`);
    }
    if (!header.littleEndian) swapBytes(bytes, type.bytes);
    const affine = checkedAffine(file.name, affineOf(file.name, header, start));
    const values = scaled(type.view(bytes.buffer as ArrayBuffer), type.range, header);
    return { channels: split(values, frames), shape, affine, codes: codesOf(header, start) };
  } finally {
    await reader.close();
  }
}

function parse(name: string, start: Uint8Array): Header {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const is2 = start.length >= 4 && (view.getInt32(0, true) === 540 || view.getInt32(0, false) === 540);
  const size = is2 ? 540 : 348;
  if (start.length < size) {
    throw new InputError(`${name}: cannot be read as NIfTI: its header has ${size} bytes, got ${start.length}`);
  }
  const copy = new Uint8Array(HEADER_BYTES);
  copy.set(start.subarray(0, size)); // without the mark of extensions: they are passed over, not parsed
  try {
    return readHeader(copy.buffer);
  } catch {
    throw new InputError(`${name}: cannot be read as NIfTI: the header has no mark of the format`);
  }
}

/** Spatial shape and number of frames. */
function checkedShape(file: File, header: Header, channels: number, gzipped: boolean): [Triple, number] {
  const rank = header.dims[0]!;
  const dims = header.dims.slice(1, 1 + Math.max(0, Math.min(7, rank)));
  const words = `(${dims.join(", ")}${dims.length === 1 ? "," : ""})`;
  if (dims.length < 2 || Math.min(...dims) < 1 || dims.slice(channels === 1 ? 3 : 4).some((n) => n !== 1)) {
    throw new InputError(`${file.name}: must be a 3D image (or 4D with one frame), got the shape ${words}`);
  }
  const [x, y, z, c] = [...dims, 1, 1].slice(0, 4) as [number, number, number, number];
  const type = TYPES[header.datatypeCode];
  if (type === undefined) {
    throw new InputError(`${file.name}: voxels must be real numbers, got the data type ${header.datatypeCode}`);
  }
  const voxels = x * y * z * c;
  if (voxels > MAX_VOXELS) {
    throw new InputError(
      `${file.name}: at most ${thousands(MAX_VOXELS)} voxels are supported, the header says ${thousands(voxels)}`,
    );
  }
  const offset = header.vox_offset;
  if (!(offset >= 0 && offset <= MAX_VOXEL_OFFSET)) {
    throw new InputError(
      `${file.name}: voxels must start within the first ${thousands(MAX_VOXEL_OFFSET)} bytes, the header says ${general(offset, 6)}`,
    );
  }
  const needed = Math.trunc(offset) + voxels * type.bytes;
  if (needed > file.size * (gzipped ? LARGEST_GZIP_RATIO : 1)) {
    throw new InputError(
      `${file.name}: is cut short: the header says ${thousands(needed)} bytes, the file has ${thousands(file.size)}`,
    );
  }
  if (c !== 1 && c !== channels) {
    throw new InputError(`${file.name}: a 4D image must have ${channels} channels, got ${c}`);
  }
  return [[x, y, z], c];
}

function swapBytes(bytes: Uint8Array, size: number): void {
  for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
}

/** The header's slope and intercept applied, as float32; the file's own type where there are none. */
function scaled(values: Voxels, range: number | null, header: Header): Channel {
  const slope = header.scl_slope;
  const intercept = header.scl_inter;
  if (!Number.isFinite(slope) || slope === 0 || (slope === 1 && intercept === 0)) return { values, integerRange: range };
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = values[i]! * slope + intercept;
  return { values: out, integerRange: null };
}

function split(channel: Channel, frames: number): Channel[] {
  const size = channel.values.length / frames;
  return Array.from({ length: frames }, (_, c) => ({
    ...channel,
    values: channel.values.subarray(c * size, (c + 1) * size),
  }));
}

/** The sform where its code is set, else the qform where its code is, else the voxel sizes around the centre, x to the left. */
function affineOf(name: string, header: Header, start: Uint8Array): Matrix {
  if (header.sform_code !== 0) {
    const rows = sformRows(header, start);
    return [rows.slice(0, 4), rows.slice(4, 8), rows.slice(8, 12), [0, 0, 0, 1]];
  }
  const [, dx = 1, dy = 1, dz = 1] = header.pixDims.map(Math.abs);
  if (header.qform_code !== 0) return quaternionAffine(name, header, [dx, dy, dz]);
  const [nx, ny, nz] = [1, 2, 3].map((i) => (header.dims[0]! >= i ? header.dims[i]! : 1)) as Triple;
  return [
    [-dx, 0, 0, (dx * (nx - 1)) / 2],
    [0, dy, 0, (-dy * (ny - 1)) / 2],
    [0, 0, dz, (-dz * (nz - 1)) / 2],
    [0, 0, 0, 1],
  ];
}

function quaternionAffine(name: string, header: Header, size: Triple): Matrix {
  const [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d];
  const rest = 1 - (b * b + c * c + d * d);
  if (rest < -3.6e-7) throw new InputError(`${name}: cannot be read as NIfTI: w2 should be positive, but is ${rest.toExponential(6)}`);
  const a = rest < 3.6e-7 ? 0 : Math.sqrt(rest);
  const scale = 2 / (a * a + b * b + c * c + d * d);
  const z = size[2] * (header.pixDims[0] === -1 ? -1 : 1);
  return [
    [(1 - scale * (c * c + d * d)) * size[0], scale * (b * c - a * d) * size[1], scale * (b * d + a * c) * z, header.qoffset_x],
    [scale * (b * c + a * d) * size[0], (1 - scale * (b * b + d * d)) * size[1], scale * (c * d - a * b) * z, header.qoffset_y],
    [scale * (b * d - a * c) * size[0], scale * (c * d + a * b) * size[1], (1 - scale * (b * b + c * c)) * z, header.qoffset_z],
    [0, 0, 0, 1],
  ];
}

/** The library gives the affine of the form that it prefers; these are the sform's numbers whatever the codes. */
function sformRows(header: Header, start: Uint8Array): number[] {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const is2 = view.getInt32(0, header.littleEndian) === 540;
  return Array.from({ length: 12 }, (_, i) =>
    is2 ? view.getFloat64(400 + 8 * i, header.littleEndian) : view.getFloat32(280 + 4 * i, header.littleEndian),
  );
}

function codesOf(header: Header, start: Uint8Array): GridCodes {
  const [qfac = 1, dx = 1, dy = 1, dz = 1] = header.pixDims;
  return {
    qformCode: header.qform_code,
    sformCode: header.sform_code,
    units: header.xyzt_units,
    pixdim: [qfac === -1 ? -1 : 1, Math.abs(dx), Math.abs(dy), Math.abs(dz)],
    quaternion: [header.quatern_b, header.quatern_c, header.quatern_d, header.qoffset_x, header.qoffset_y, header.qoffset_z],
    sform: sformRows(header, start),
  };
}
