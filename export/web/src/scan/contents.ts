/** What a file that a reader refused really is, by its first bytes, in the words of the command line. */

import { AGAIN } from "./volume";

const START_BYTES = 4096;
const WEB_PAGE = `is a web page, not an image: the site wanted a login or another address; ${AGAIN}`;

// First bytes in lower case, and the reason.
const NO_IMAGE: readonly (readonly [string, string])[] = [
  ["version https://git-lfs", "is a pointer of Git LFS, not the file itself: fetch it with git lfs pull"],
  ["<!doctype html", WEB_PAGE],
  ["<html", WEB_PAGE],
  ["pk\x03\x04", "is a zip archive, whatever its name says: unpack it, or let its name end in .zip"],
  ["\x93numpy", "is an array of NumPy, which states no voxel size: write it as NIfTI"],
  ["\x89hdf", "is an HDF5 file, which is not read: write its images as NIfTI"],
];
// First bytes, the format, and the endings of its names.
const IMAGES: readonly (readonly [string, string, readonly string[]])[] = [
  ["\x1f\x8b", "is gzipped", [".gz", ".mgz"]],
  ["\x89PNG\r\n", "is a PNG", [".png"]],
  ["\xff\xd8\xff", "is a JPEG", [".jpg", ".jpeg"]],
  ["II*\0", "is a TIFF", [".tif", ".tiff"]],
  ["MM\0*", "is a TIFF", [".tif", ".tiff"]],
  ["NRRD000", "is an NRRD", [".nrrd", ".nhdr"]],
  ["ObjectType", "is a MetaImage", [".mha", ".mhd"]],
  ["NDims", "is a MetaImage", [".mha", ".mhd"]],
];

/** A clause about contents that the name does not promise, and what to do; null where the first bytes tell nothing. */
export async function otherContents(file: File): Promise<string | null> {
  const bytes = new Uint8Array(await file.slice(0, START_BYTES).arrayBuffer());
  if (bytes.length === 0) return `is empty (0 bytes): ${AGAIN}`;
  if (bytes.every((byte) => byte === 0)) return `begins with zeros alone, as a transfer that broke off leaves it: ${AGAIN}`;
  const start = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const plain = start.replace(/^[\xef\xbb\xbf \t\r\n]+/, "").replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  if (plain.slice(0, 200).includes("annex/objects/")) {
    return "is a pointer of git-annex, not the file itself: fetch it with datalad get or git annex get";
  }
  const clause = NO_IMAGE.find(([mark]) => plain.startsWith(mark));
  if (clause !== undefined) return clause[1];
  const name = file.name.toLowerCase();
  const known = [...IMAGES, ...byOffset(start)].find(
    ([mark, , endings]) => start.startsWith(mark) && !endings.some((ending) => name.endsWith(ending)),
  );
  return known === undefined ? null : `${known[1]}, whatever its name says: rename it so that it ends in ${known[2][0]}`;
}

/** DICOM and NIfTI, whose marks are not their first bytes. */
function byOffset(start: string): (readonly [string, string, readonly string[]])[] {
  if (start.slice(128, 132) === "DICM") return [["", "is DICOM", [".dcm", ".dicom", ".ima"]]];
  const marks = ["n+1\0", "n+2\0"];
  if (marks.includes(start.slice(344, 348)) || marks.includes(start.slice(4, 8))) return [["", "is NIfTI without gzip", [".nii"]]];
  return [];
}
