/** NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read. */

import { readHeader } from "nifti-reader-js";
import { Reader } from "./gzip";
import { geometryOf, type Header } from "./nifti_geometry";
import { AGAIN, type Channel, checkedAffine, InputError, MAX_VOXELS, type Triple, type Volume, type Voxels } from "./volume";
import { general, thousands } from "./words";

const HEADER_BYTES = 544;
const MARKS = ["n+1\0", "n+2\0\r\n\x1a\n", "n+2\0\0\0\0\0"]; // version 2's shows where line ends were converted
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
  64: { bytes: 8, range: null, view: (b) => new Float64Array(b) },
};

const COLOURS = "save one grey channel, or a channel for each colour";
const COMPLEX = "complex ones: save their magnitude";
// Data types that are no real numbers, with what to save instead
const NOT_REAL: Record<number, string> = {
  128: `colours (R, G, B): ${COLOURS}`,
  2304: `colours (R, G, B, A): ${COLOURS}`,
  32: COMPLEX,
  1792: COMPLEX,
};
const UNSUPPORTED = [0, 1, 1536, 2048]; // types that the format has and no reader here takes

/** The file's voxels; `channels` are how many the network takes: a fourth axis of that length holds them. */
export async function readNifti(file: File, channels: number): Promise<Volume> {
  const gzipped = file.name.toLowerCase().endsWith(".gz");
  const reader = new Reader(file, gzipped);
  try {
    const start = await reader.take(HEADER_BYTES);
    const header = parse(file.name, start);
    const geometry = geometryOf(file.name, header, start);
    checkedAffine(file.name, geometry.affine);
    const [shape, frames] = checkedShape(file, header, channels, gzipped);
    const type = TYPES[header.datatypeCode]!;
    const offset = Math.trunc(header.vox_offset);
    const needed = shape[0] * shape[1] * shape[2] * frames * type.bytes;
    const bytes = await reader.span(offset, needed);
    await reader.toTheEnd(offset + needed);
    if (bytes.byteLength < needed) {
      const words = `Expected ${needed} bytes, got ${bytes.byteLength} bytes; ${AGAIN}`;
      throw new InputError(`${file.name}: cannot be read as NIfTI: ${words}`);
    }
    if (!header.littleEndian) swapBytes(bytes, type.bytes);
    const values = scaled(type.view(bytes.buffer as ArrayBuffer), type.range, header);
    return { channels: split(values, frames), shape, ...geometry };
  } finally {
    await reader.close();
  }
}

function parse(name: string, start: Uint8Array): Header {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const is2 = start.length >= 4 && (view.getInt32(0, true) === 540 || view.getInt32(0, false) === 540);
  const size = is2 ? 540 : 348;
  if (start.length < size) {
    throw new InputError(`${name}: cannot be read as NIfTI: its header has ${size} bytes, got ${start.length}; ${AGAIN}`);
  }
  const copy = new Uint8Array(HEADER_BYTES);
  copy.set(start.subarray(0, size)); // without the mark of extensions: they are passed over, not parsed
  const mark = String.fromCharCode(...(is2 ? start.subarray(4, 12) : start.subarray(344, 348)));
  let header: Header;
  try {
    if (!MARKS.includes(mark)) throw new Error(mark);
    header = readHeader(copy.buffer);
  } catch {
    throw new InputError(`${name}: cannot be read as NIfTI: the header has no mark of the format`);
  }
  const axes = is2 ? Number(view.getBigInt64(16, header.littleEndian)) : header.dims[0]!;
  if (!(axes >= 1 && axes <= 7)) throw new InputError(`${name}: cannot be read as NIfTI: it must have 1 to 7 axes, got ${axes}`);
  return header;
}

/** Spatial shape and number of channels: along axis 4, or along axis 5 as vectors are stored. */
function checkedShape(file: File, header: Header, channels: number, gzipped: boolean): [Triple, number] {
  const { name } = file;
  let dims = header.dims.slice(1, 1 + header.dims[0]!);
  if (dims.length === 5 && dims[3] === 1) dims = [...dims.slice(0, 3), dims[4]!];
  if (dims.length < 2 || Math.min(...dims) < 1 || dims.slice(4).some((n) => n !== 1)) {
    const words = `(${dims.join(", ")}${dims.length === 1 ? "," : ""})`;
    throw new InputError(`${name}: must be a 3D image (or 4D, with channels), got the shape ${words}`);
  }
  const [x, y, z, c] = [...dims, 1, 1].slice(0, 4) as [number, number, number, number];
  const type = TYPES[header.datatypeCode];
  if (type === undefined) {
    const [code, notReal] = [header.datatypeCode, NOT_REAL[header.datatypeCode]];
    if (notReal !== undefined) throw new InputError(`${name}: voxels must be real numbers, got ${notReal}`);
    const what = UNSUPPORTED.includes(code) ? "supported" : "recognized";
    throw new InputError(`${name}: cannot be read as NIfTI: data code ${code} not ${what}`);
  }
  const offset = header.vox_offset;
  const headerBytes = String(header.magic).startsWith("n+2") ? 544 : 352;
  if (!(offset >= headerBytes && offset <= MAX_VOXEL_OFFSET)) {
    const rule = `voxels must start behind the header and within the first ${thousands(MAX_VOXEL_OFFSET)} bytes`;
    throw new InputError(`${name}: ${rule}, the header says ${general(offset, 6)}`);
  }
  const [voxels, bytes] = [x * y * z * c, x * y * z * c * type.bytes];
  if (voxels > MAX_VOXELS) {
    throw new InputError(`${name}: at most ${thousands(MAX_VOXELS)} voxels are supported, the header says ${thousands(voxels)}`);
  }
  if (bytes > file.size * (gzipped ? LARGEST_GZIP_RATIO : 1)) {
    const [said, present] = [thousands(bytes), thousands(file.size)];
    throw new InputError(`${name}: is cut short: the header says ${said} bytes, the file has ${present}; ${AGAIN}`);
  }
  if (c !== 1 && c !== channels) {
    throw new InputError(`${name}: must have ${channels} channel${channels > 1 ? "s" : ""}, got ${c}`);
  }
  return [[x, y, z], c];
}

function swapBytes(bytes: Uint8Array, size: number): void {
  for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
}

/** The header's slope and intercept applied, as float32; the file's own type where there are none, float64 as float32. */
function scaled(values: Voxels, range: number | null, header: Header): Channel {
  const slope = header.scl_slope;
  const intercept = header.scl_inter;
  if (!Number.isFinite(slope) || slope === 0 || (slope === 1 && intercept === 0)) {
    const isDouble = range === null && values instanceof Float64Array;
    return { values: isDouble ? Float32Array.from(values) : values, integerRange: range };
  }
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
