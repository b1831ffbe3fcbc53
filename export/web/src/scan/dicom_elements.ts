/** Elements of a data set. One of another type or with damaged contents raises an Error: nothing is read as something else. */

import type { DataSet, Element } from "dicom-parser";

const DECIMAL = /^ *[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)? *$/i;

export const TEXTS = ["AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT"];
export const DECIMALS = ["DS", "IS"];

/** An unsigned number of 16 bits; undefined where the element is missing. */
export function wholeOf(data: DataSet, tag: string): number | undefined {
  const element = data.elements[tag];
  if (!element) return undefined;
  if (![undefined, "US"].includes(element.vr) || element.length !== 2) throw new Error(`${tag}: must be one number of 16 bits`);
  return data.uint16(tag);
}

/** The letters of an element of a type with letters, one for each byte, without blanks around them; undefined where it is missing. */
export function textOf(data: DataSet, tag: string, types = TEXTS): string | undefined {
  const element = data.elements[tag];
  if (!element) return undefined;
  if (element.vr && !types.includes(element.vr)) throw new Error(`${tag}: must be one of ${types}`);
  const bytes = data.byteArray.subarray(element.dataOffset, element.dataOffset + element.length);
  return new TextDecoder("latin1").decode(bytes).replace(/[\0 ]+$/, "").trimStart();
}

/** Decimal numbers; none where the element is blank, undefined where it is missing. */
export function decimalsOf(data: DataSet, tag: string): number[] | undefined {
  const text = textOf(data, tag, DECIMALS);
  if (!text) return text === undefined ? undefined : [];
  const parts = text.split("\\");
  if (!parts.every((part) => DECIMAL.test(part))) throw new Error(`${tag}: must be decimal numbers`);
  return parts.map(Number);
}

/** The one decimal number of an element; undefined where it is missing or blank. */
export function decimalOf(data: DataSet, tag: string): number | undefined {
  const values = decimalsOf(data, tag) ?? [];
  if (values.length > 1) throw new Error(`${tag}: must be one number`);
  return values[0];
}

/** How many frames a file says it has. */
export function framesOf(data: DataSet): number {
  return decimalOf(data, "x00280008") || 1;
}

/** A number of 64 bits; undefined where the element is missing or empty. */
export function doubleOf(data: DataSet, tag: string): number | undefined {
  const element = data.elements[tag];
  if (!element?.length) return undefined;
  if (![undefined, "FD"].includes(element.vr) || element.length !== 8) throw new Error(`${tag}: must be one number of 64 bits`);
  return data.double(tag);
}

/** The items of a sequence; undefined where it is missing or empty. */
export function itemsOf(data: DataSet | undefined, tag: string): Element[] | undefined {
  const element = data?.elements[tag];
  if (element?.length && !element.items) throw new Error(`${tag}: must be a sequence`);
  return element?.items;
}
