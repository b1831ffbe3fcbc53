/** The metadata of an artefact, as `docs/artefact.md` describes them; read from the file's bytes, since ONNX Runtime Web does not give them. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { InputError } from "../scan/volume";

export interface Preprocessing {
  orientation: string | null;
  slice_axis: 0 | 1 | 2;
  spacing_mm: number | null;
  size: [number, number];
  normalization: "zscore" | "ct" | "none";
  clip_percentiles: [number, number];
  window: [number, number];
  context_slices: number;
  num_channels: number;
}

export interface LabelClass {
  index: number;
  name: string;
  value: number;
  color: string;
}

export interface Ranges {
  unit: "mm" | "pixel";
  spacing: [number, number][];
  extent: [number, number][];
  std: [number, number][];
  mean?: [number, number][];
}

export interface Golden {
  slices: { shape: number[]; float32_base64: string };
  logits: { shape: number[]; float32_base64: string };
  stride: number;
  tolerance: number;
}

export interface Metadata {
  schema: number;
  sha256: string;
  name: string;
  precision: "fp32" | "fp16" | "int8";
  preprocessing: Preprocessing;
  classes: LabelClass[];
  channel_names?: string[];
  input: { name: "slices" | "volume"; channels: number; height: number | null; width: number | null };
  postprocessing: { largest_component: boolean; erosion_mm?: number };
  ranges?: Ranges | null;
  num_parameters: number;
  training: { cases: Record<string, string>; license: string | null };
  dice_at_export: { cases?: string; artefact?: number | null };
  golden: Golden | Record<string, never>;
}

const KEY = "attunet";
const SCHEMA = 2;
const DIGITS = 64;
const METADATA_FIELD = 14; // ModelProto.metadata_props
const MAX_NUMBER = 2 ** 29 - 1; // of a field; readers in C++ cut longer ones off, and would see another field
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

interface Span {
  number: number;
  start: number;
  end: number;
}

/** Raises InputError with the reason for a file that is no whole artefact of this version or older. */
export function readMetadata(data: Uint8Array, where: string): Metadata {
  const spans = findMetadata(data, where);
  if (spans.length === 0) {
    throw new InputError(`${where}: is an ONNX model that attunet did not export: it has no metadata '${KEY}'`);
  }
  if (spans.length > 1) throw new InputError(`${where}: the metadata '${KEY}' must occur once, got ${spans.length} of them`);
  const { start, end } = spans[0]!;
  const about = parse(new TextDecoder().decode(data.subarray(start, end)), where);
  if (!(Number.isInteger(about.schema) && about.schema > 0)) {
    throw new InputError(`${where}: schema must be an integer of at least 1, got ${JSON.stringify(about.schema)}`);
  }
  if (about.schema > SCHEMA) {
    throw new InputError(
      `${where}: its metadata have schema ${about.schema}, this page reads up to ${SCHEMA}: one of a newer attunet is needed`,
    );
  }
  checkHash(data, start, end, about.sha256, where);
  if (about.input.name === "volume") throw new InputError(`${where}: takes a whole volume, the page gives it slices`);
  return about;
}

function parse(text: string, where: string): Metadata {
  try {
    return JSON.parse(text) as Metadata;
  } catch (error) {
    throw new InputError(`${where}: the metadata '${KEY}' are not JSON: ${(error as Error).message}`);
  }
}

function checkHash(data: Uint8Array, start: number, end: number, digest: string, where: string): void {
  const text = `"sha256":"${digest}"`;
  const within = new TextDecoder("latin1").decode(data.subarray(start, end)).lastIndexOf(text); // a letter for every byte
  if (within < 0) throw new InputError(`${where}: the metadata must hold "sha256":"..." without blanks`);
  const at = start + within + '"sha256":"'.length;
  const hash = sha256.create();
  hash.update(data.subarray(0, at)).update(new Uint8Array(DIGITS).fill(0x30)).update(data.subarray(at + DIGITS));
  if (bytesToHex(hash.digest()) !== digest) {
    throw new InputError(
      `${where}: was damaged or changed after the export: the SHA-256 of its content is not the one in its metadata`,
    );
  }
}

/** Where the values of the metadata entries with the key lie: ModelProto's field 14, whose fields 1 and 2 are key and value. */
function findMetadata(data: Uint8Array, where: string): Span[] {
  try {
    const text = new TextDecoder();
    return fields(data, 0, data.length)
      .filter((field) => field.number === METADATA_FIELD)
      .map((entry) => fields(data, entry.start, entry.end))
      .filter((entry) => entry.some((f) => f.number === 1 && text.decode(data.subarray(f.start, f.end)) === KEY))
      .flatMap((entry) => entry.filter((field) => field.number === 2));
  } catch (error) {
    throw new InputError(`${where}: is not an ONNX model, or truncated: ${(error as Error).message}`);
  }
}

function fields(data: Uint8Array, from: number, end: number): Span[] {
  const spans: Span[] = [];
  let at = from;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70; factor *= 128) {
      if (at >= end) throw new Error(`a number is cut off at byte ${at}`);
      const byte = data[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new Error(`a number of more than 64 bits before byte ${at}`);
  };
  while (at < end) {
    const tag = varint();
    const wire = tag % 8;
    let start = at;
    if (wire === VARINT) varint();
    else if (wire === BYTES) {
      const length = varint();
      start = at;
      at += length;
    } else if (wire === FIXED64 || wire === FIXED32) at += wire === FIXED64 ? 8 : 4;
    else throw new Error(`unknown wire type ${wire} before byte ${at}`);
    const number = Math.floor(tag / 8);
    if (!(number > 0 && number <= MAX_NUMBER)) throw new Error(`a field with the number ${number} before byte ${start}`);
    if (at > end) {
      throw new Error(`field ${number} before byte ${start} needs ${at - start} bytes, ${end - start} are left`);
    }
    spans.push({ number, start, end: at });
  }
  return spans;
}
