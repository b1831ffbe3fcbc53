/** Dropped files to one volume: a NIfTI file (or one for each channel), or the files of a DICOM series. */

import { otherContents } from "./contents";
import { readSeries } from "./dicom";
import { isDicom } from "./dicom_file";
import { readNifti } from "./nifti";
import { AGAIN, checkVoxels, InputError, type Volume } from "./volume";

const FORMATS = "NIfTI, DICOM (a folder with one series, or a file)";
const DICOM = /\.(dcm|dicom|ima)$/i;
const NIFTI = /\.nii(\.gz)?$/i;
const FIRST_CHANNEL = /_0000\.nii(\.gz)?$/i;

export interface Scan {
  /** The file's name, or the folder's. */
  name: string;
  volume: Volume;
}

/** folder: the name of the dropped folder, where it was one. channels: how many the network takes. */
export async function readScan(
  files: readonly File[],
  folder: string | null,
  channels: number,
  parents: readonly string[] = [],
): Promise<Scan> {
  const seen = files.filter((file) => !file.name.startsWith(".") && file.name.toUpperCase() !== "DICOMDIR");
  const nifti = seen.filter((file) => NIFTI.test(file.name));
  const name = folder ?? seen[0]?.name ?? "the folder";
  const others = nifti.length > 0 ? seen.filter((file) => !nifti.includes(file)) : [];
  if ((await Promise.all(others.map(isDicom))).includes(true)) {
    throw new InputError(`${name}: holds NIfTI and DICOM; one scan at a time is segmented: choose the files of one`);
  }
  const parentOf = new Map(files.map((file, i) => [file, parents[i] ?? ""]));
  const volume =
    nifti.length > 0 ? await readFiles(nifti, channels) : await readDicom(name, seen, folder !== null, parentOf);
  checkVoxels(nifti[0]?.name ?? name, volume);
  return { name: nifti[0]?.name ?? name, volume };
}

/** The name without the ending of its format. */
export function stemOf(name: string): string {
  return name.replace(NIFTI, "").replace(/\.dcm$/i, "");
}

async function readDicom(
  name: string,
  files: readonly File[],
  isFolder: boolean,
  parentOf: ReadonlyMap<File, string>,
): Promise<Volume> {
  const marks = await Promise.all(files.map(isDicom));
  const slices = files.filter((_, i) => marks[i]);
  const kinds = slices.map((file) => kindOf(file.name));
  const lost = files.find(
    (file, i) => !marks[i] && (file.size === 0 || DICOM.test(file.name) || kinds.includes(kindOf(file.name))),
  );
  if (slices.length > 0 && lost) {
    throw new InputError(`${lost.name}: holds no DICOM, so a slice may be missing: ${AGAIN}, or take it away`);
  }
  const [first, second] = [...new Set(slices.map((file) => parentOf.get(file)))].sort();
  if (second !== undefined) {
    const place = first ? `the folders ${first} and ${second}` : `${second} and beside it`;
    throw new InputError(`${name}: slices lie in ${place}: choose the folder of one series`);
  }
  if (slices.length > 0) return readSeries(slices.length === 1 ? slices[0]!.name : name, slices);
  if (isFolder) throw new InputError(`${name}: the folder has no volume; the formats are ${FORMATS}`);
  if (/\.dcm$/i.test(name)) {
    const contents = await otherContents(files[0]!);
    const reason = `cannot be read as DICOM: bytes 129 to 132 must be DICM; is it damaged? ${AGAIN}`;
    throw new InputError(`${name}: ${contents ?? reason}`);
  }
  const ending = /\.[^.]+$/.exec(name)?.[0] ?? "a file without an ending";
  throw new InputError(`${name}: ${ending} is not read; the formats are ${FORMATS}`);
}

/** A name without what tells the slices of a series apart: their numbers, also those of hexadecimal digits alone. */
function kindOf(name: string): string {
  return /^[0-9A-Fa-f._-]+$/.test(name) ? "0" : name.replace(/[0-9]+/g, "0");
}

/** A NIfTI file; one that cannot be read is refused by what it really is, where its first bytes tell. */
async function readOne(file: File, channels: number): Promise<Volume> {
  try {
    return await readNifti(file, channels);
  } catch (error) {
    if (!(error instanceof InputError && error.message.includes(": cannot be read as "))) throw error;
    const contents = await otherContents(file);
    throw contents === null ? error : new InputError(`${file.name}: ${contents}`);
  }
}

/** One file, or X_0000.nii.gz, X_0001.nii.gz, ... that are the channels of one volume. */
async function readFiles(files: readonly File[], channels: number): Promise<Volume> {
  if (files.length === 1) return readOne(files[0]!, channels);
  const names = files.map((file) => file.name).sort();
  if (files.length !== channels) {
    throw new InputError(`${names[0]}: one scan at a time is segmented, got ${files.length} files`);
  }
  const start = names[0]!.replace(FIRST_CHANNEL, "");
  if (!names.every((n, i) => n.replace(NIFTI, "") === `${start}_${String(i).padStart(4, "0")}`)) {
    throw new InputError(`${names[0]}: the channels of one scan must be called X_0000, X_0001, ... in their order, got ${names[1]} beside it`);
  }
  const [first, ...others] = await Promise.all(names.map((n) => readOne(files.find((file) => file.name === n)!, 1)));
  others.forEach((other, i) => {
    const same = other.shape.every((n, axis) => n === first!.shape[axis]);
    const apart = Math.max(...other.affine.flat().map((value, k) => Math.abs(value - first!.affine.flat()[k]!)));
    if (!same || apart > 1e-3) throw new InputError(`${names[i + 1]}: must lie on the grid of ${names[0]}`);
  });
  return { ...first!, channels: [first!, ...others].flatMap((volume) => volume.channels) };
}
