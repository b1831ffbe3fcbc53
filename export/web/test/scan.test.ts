import { expect, test } from "vitest";
import { readNifti } from "../src/scan/nifti";
import { readScan } from "../src/scan/read";
import { InputError } from "../src/scan/volume";
import { writeNifti } from "../src/scan/write";
import { general, python } from "../src/scan/words";
import { bytes, file, fixtures } from "./fixtures";

test.each(fixtures.niftis)("NIfTI: $name", async ({ name, base64, values, affine, shape }) => {
  const volume = await readNifti(file(name, base64), 1);
  expect(volume.shape).toEqual(shape);
  expect([...volume.channels[0]!.values]).toEqual(values);
  volume.affine.flat().forEach((value, i) => expect(value).toBeCloseTo(affine.flat()[i]!, 5));
});

test("a label map lies on the scan's grid, with its codes", async () => {
  for (const { name, base64 } of fixtures.niftis) {
    const scan = await readNifti(file(name, base64), 1);
    const labels = Uint8Array.from(scan.channels[0]!.values, (_, i) => i % 5);
    const again = await readNifti(new File([writeNifti(labels, scan)], "labels.nii"), 1);
    expect(again.shape).toEqual(scan.shape);
    expect([...again.channels[0]!.values]).toEqual([...labels]);
    again.affine.flat().forEach((value, i) => expect(value).toBeCloseTo(scan.affine.flat()[i]!, 5));
    expect([again.codes!.qformCode, again.codes!.sformCode]).toEqual([scan.codes!.qformCode, scan.codes!.sformCode]);
  }
});

test.each(fixtures.dicoms)("DICOM: $name", async ({ files, values, affine, shape }) => {
  const series = Object.entries(files).map(([name, base64]) => file(name, base64!));
  const { volume, name } = await readScan(series, "series", 1);
  expect(name).toBe("series");
  expect(volume.shape).toEqual(shape);
  expect([...volume.channels[0]!.values]).toEqual(values);
  volume.affine.flat().forEach((value, i) => expect(value).toBeCloseTo(affine.flat()[i]!, 10));
});

test("slices that lie unevenly, or twice in one place, are refused", async () => {
  const [one, two] = Object.values(fixtures.dicoms[0]!.files) as [string, string];
  const twice = [file("a.dcm", one), file("b.dcm", one), file("c.dcm", two)];
  await expect(readScan(twice, "series", 1)).rejects.toThrow("series: two slices lie in the same place, a.dcm and b.dcm");
  const cut = file("cut.dcm", Buffer.from(bytes(one)).subarray(0, -9).toString("base64"));
  await expect(readScan([cut], null, 1)).rejects.toThrow(/^cut.dcm: (is cut short: its pixels need 24 bytes|cannot be read as DICOM)/);
});

test.each([
  ["a.dcm", "b.dcm", "c.dcm", "nonsense"],
  ["a.dcm", "b.dcm", "c", ""],
  ["IM1", "IM02", "IM3", "nonsense"],
  ["1.2.8", "1.2.9", "1.2.10", "nonsense"],
  ["0A", "1F", "B7", "nonsense"],
])("a file that may be a slice is not left out: %s, %s, %s", async (first, second, name, content) => {
  const [one, two] = Object.values(fixtures.dicoms[0]!.files) as [string, string];
  const files = [file(first, one), file(second, two), new File(["hello"], "notes.txt"), new File(["hello"], "README")];
  expect((await readScan(files, "series", 1)).volume.shape[2]).toBe(2);
  const line = `${name}: holds no DICOM, so a slice may be missing: copy or download it again, or take it away`;
  await expect(readScan([...files, new File([content], name)], "series", 1)).rejects.toThrow(new InputError(line));
});

/** A file in which bytes, written as letters, are others; all of them, as often as they come. */
function replaced(base64: string, from: string, to: string): string {
  const content = Buffer.from(bytes(base64)).toString("latin1");
  expect(content).toContain(from);
  return Buffer.from(content.replaceAll(from, to), "latin1").toString("base64");
}

test("slices of which white is low have one number of bits", async () => {
  const { files } = fixtures.dicoms.find(({ name }) => name === "white is low in twelve bits")!;
  const [one, two] = Object.values(files) as [string, string];
  const [twelve, eleven] = ["\x0c\0", "\x0b\0"].map((bits) => `\x28\0\x01\x01US\x02\0${bits}`) as [string, string];
  const series = [file("a.dcm", one), file("b.dcm", replaced(two, twelve, eleven))];
  await expect(readScan(series, "series", 1)).rejects.toThrow("series: slices of a series must agree in BitsStored");
});

const FRAMES = fixtures.dicoms.find(({ name }) => name === "many frames")!.files["1.dcm"]!;
const ECHOES = fixtures.wrong_series.at(-1)!.files["1.dcm"]!;

test.each([
  ["letters as numbers", FRAMES, "\x08\0\x60\0CS", "\x08\0\x60\0US"],
  ["letters as decimals", FRAMES, "\x08\0\x60\0CS", "\x08\0\x60\0DS"],
  ["a type of picture as numbers", FRAMES, "\x28\0\x04\0CS", "\x28\0\x04\0AT"],
  ["places of frames as bytes", FRAMES, "\x20\0\x13\x91SQ", "\x20\0\x13\x91OB"],
  ["shared groups as text", FRAMES, "\0\x52\x29\x92SQ", "\0\x52\x29\x92UT"],
  ["pixels as text", FRAMES, "\xe0\x7f\x10\0OW", "\xe0\x7f\x10\0UT"],
  ["a time of an echo as decimals", ECHOES, "\x18\0\x82\x90FD", "\x18\0\x82\x90DS"],
])("DICOM with elements of another type is refused: %s", async (_, whole, from, to) => {
  const line = "1.dcm: cannot be read as DICOM: its header is damaged";
  await expect(readScan([file("1.dcm", replaced(whole!, from, to))], null, 1)).rejects.toThrow(line);
});

test("voxels that go on far beyond those of the header are refused", async () => {
  const { name, base64 } = fixtures.niftis.find(({ name }) => name.endsWith(".nii"))!;
  const far = new File([bytes(base64), new Uint8Array(65 * 2 ** 20)], name);
  const line = "it goes on for more than 67,108,864 bytes behind what its header says; copy or download it again";
  await expect(readNifti(far, 1)).rejects.toThrow(new InputError(`${name}: cannot be read as NIfTI: ${line}`));
});

test.each(fixtures.wrong_files)("refused as on the command line: $line", async ({ name, base64, line }) => {
  await expect(readScan([file(name, base64)], null, 1)).rejects.toThrow(new InputError(line));
});

test.each(fixtures.wrong_series)("a series is refused as on the command line: $line", async ({ files, line }) => {
  const series = Object.entries(files).map(([name, base64]) => file(name, base64!));
  await expect(readScan(series, "series", 1)).rejects.toThrow(new InputError(line));
});

/** The bytes of a DICOM file with one element, found by its start, in another form. */
function withElement(base64: string, start: string, form: string): File {
  const letters = Buffer.from(base64, "base64").toString("latin1");
  const at = letters.indexOf(start);
  expect(at).toBeGreaterThan(0);
  const end = at + 8 + Buffer.from(letters, "latin1").readUInt16LE(at + 6);
  return new File([Buffer.from(letters.slice(0, at) + form + letters.slice(end), "latin1")], "a.dcm");
}

const SLOPE = "\x28\0\x53\x10DS";
const INTERCEPT = "\x28\0\x52\x10DS";
test.each([
  ["another type", INTERCEPT, "\x28\0\x52\x10FL\x04\0\0\0\0\x40"],
  ["no number", INTERCEPT, "\x28\0\x52\x10DS\x04\0abc "],
  ["two numbers", INTERCEPT, "\x28\0\x52\x10DS\x04\x001\\2 "],
  ["another base", SLOPE, "\x28\0\x53\x10DS\x04\x000x10"],
  ["a word of 32 bits", "\x28\0\x10\0US", "\x28\0\x10\0UL\x04\0\x03\0\x01\0"],
])("an element of a DICOM file is read as what it is, or refused: %s", async (_, start, form) => {
  const [one] = Object.values(fixtures.dicoms.find(({ name }) => name === "rescaled")!.files) as [string];
  await expect(readScan([withElement(one, start, form)], null, 1)).rejects.toThrow("a.dcm: cannot be read as DICOM");
});

test("objects that are no scan, and pixels in fragments, are refused", async () => {
  const [one] = Object.values(fixtures.dicoms[0]!.files) as [string];
  const mask = withElement(one, "\x08\0\x60\0CS", "\x08\0\x60\0CS\x04\0SEG ");
  await expect(readScan([mask], null, 1)).rejects.toThrow("a.dcm: is no image of slices: its modality is SEG");
  const letters = Buffer.from(one, "base64").toString("latin1");
  const at = letters.indexOf("\xe0\x7f\x10\0OW");
  const item = "\xfe\xff\0\xe0\x18\0\0\0";
  const parts = `${letters.slice(0, at + 8)}\xff\xff\xff\xff${item}${letters.slice(at + 12)}\xfe\xff\xdd\xe0\0\0\0\0`;
  await expect(readScan([new File([Buffer.from(parts, "latin1")], "a.dcm")], null, 1)).rejects.toThrow("a.dcm: has pixels in fragments");
});

test("a frame's elements count in their own functional groups alone", async () => {
  const [many] = Object.values(fixtures.dicoms.find(({ name }) => name === "many frames")!.files) as [string];
  const letters = Buffer.from(many, "base64").toString("latin1").replace("\x28\0\x10\x91SQ", "\x28\0\x32\x91SQ"); // FrameVOILUTSequence
  await expect(readScan([new File([Buffer.from(letters, "latin1")], "a.dcm")], null, 1)).rejects.toThrow("lacks the element PixelSpacing");
});

test("slices without the bytes before DICM, and NIfTI beside DICOM, are not left out", async () => {
  const [one, two] = Object.values(fixtures.dicoms[0]!.files) as [string, string];
  const bare = new File([bytes(two).slice(132)], "IM2");
  await expect(readScan([file("IM1", one), bare], "series", 1)).rejects.toThrow("IM2: is DICOM without its first 132 bytes");
  const nifti = file("a.nii", fixtures.niftis.find(({ name }) => name === "qform.nii")!.base64);
  await expect(readScan([file("IM1", one), nifti], "series", 1)).rejects.toThrow("series: holds NIfTI and DICOM");
});

test("files are the channels of one scan by their names alone", async () => {
  const { base64 } = fixtures.niftis.find(({ name }) => name === "sform.nii.gz")!;
  const line = "the channels of one scan must be called X_0000, X_0001";
  for (const names of [["a.nii.gz", "b.nii.gz"], ["a.nii.gz", "a.nii.gz"], ["a_0000.nii.gz", "b_0001.nii.gz"], ["a_0000.nii.gz", "a_0002.nii.gz"]]) {
    await expect(readScan(names.map((name) => file(name, base64)), null, 2)).rejects.toThrow(line);
  }
});

test("headers that the command line mends or refuses", async () => {
  const mark = changed("mark.nii", (header) => header.writeUInt8(65, 347));
  await expect(readScan([mark], null, 1)).rejects.toThrow("mark.nii: cannot be read as NIfTI: the header has no mark of the format");
  const axes = changed("axes.nii", (header) => header.writeInt16LE(8, 40));
  await expect(readScan([axes], null, 1)).rejects.toThrow("axes.nii: cannot be read as NIfTI: it must have 1 to 7 axes, got 8");
  const sizes = await readScan([changed("sizes.nii", (header) => header.writeFloatLE(0, 80))], null, 1);
  expect(sizes.volume.codes!.pixdim[1]).toBe(1);
  const long = fixtures.niftis.find(({ name }) => name === "version2.nii")!;
  const header = Buffer.from(bytes(long.base64).slice(0, 544));
  [3, 40000, 1, 1].forEach((n, i) => header.writeBigInt64LE(BigInt(n), 16 + 8 * i));
  const file = new File([header, new Uint8Array(8 * 40000)], "long.nii");
  await expect(readScan([file], null, 1)).rejects.toThrow("long.nii: an axis of at most 32767 voxels is segmented in the browser, got 40000");
});

test("more voxels than a browser holds are refused before any is read", async () => {
  const header = Buffer.from(bytes(fixtures.niftis.find(({ name }) => name === "qform.nii")!.base64).slice(0, 352));
  [3, 2000, 2000, 2000].forEach((n, i) => header.writeInt16LE(n, 40 + 2 * i));
  await expect(readScan([new File([header], "huge.nii")], null, 1)).rejects.toThrow(
    "huge.nii: at most 268,435,456 voxels are supported, the header says 8,000,000,000",
  );
});

/** The header of a good file, 348 bytes and more, with some fields changed. */
function changed(name: string, change: (header: Buffer) => void): File {
  const content = Buffer.from(bytes(fixtures.niftis.find((row) => row.name === "qform.nii")!.base64));
  change(content);
  return new File([content], name);
}

test("an sform that contradicts the qform is refused with both", async () => {
  const file = changed("two.nii", (header) => {
    header.writeInt16LE(1, 254);
    [-2, 0, 0, 5, 0, 2, 0, 6, 0, 0, 9, 7].forEach((n, i) => header.writeFloatLE(n, 280 + 4 * i));
  });
  await expect(readScan([file], null, 1)).rejects.toThrow("two.nii: the sform has voxels of 2 × 2 × 9 mm, qform and pixdim of 1.5 × 1.5 × 6 mm");
});

test("micrometres become mm, and metres that no scan has are refused", async () => {
  const small = await readScan([changed("small.nii", (header) => header.writeUInt8(3, 123))], null, 1);
  expect(small.volume.affine.flat().every((value) => Math.abs(value) <= 1)).toBe(true);
  expect(small.volume.codes!.pixdim[3]).toBe(6);
  const large = changed("large.nii", (header) => header.writeUInt8(1, 123));
  await expect(readScan([large], null, 1)).rejects.toThrow("large.nii: the header says metres, so that voxels of 1.5 × 1.5 × 6 would be 1000 times");
});

test("channels come as frames of one file, or as files on one grid", async () => {
  const { base64, values } = fixtures.niftis.find(({ name }) => name === "sform.nii.gz")!;
  const two = [file("case_0001.nii.gz", base64), file("case_0000.nii.gz", base64)];
  const { volume, name } = await readScan(two, null, 2);
  expect(volume.channels.map((one) => [...one.values])).toEqual([values, values]);
  expect(name).toBe("case_0001.nii.gz");
  await expect(readScan(two, null, 1)).rejects.toThrow("case_0000.nii.gz: one scan at a time is segmented, got 2 files");
});

test.each([
  [[new File(["hello"], "notes.txt")], null, "notes.txt: .txt is not read; the formats are NIfTI, DICOM (a folder with one series, or a file)"],
  [[new File(["hello"], "IM1.dcm")], null, "IM1.dcm: cannot be read as DICOM: bytes 129 to 132 must be DICM; is it damaged? copy or download it again"],
  [[new File(["hello"], "notes.txt")], "export", "export: the folder has no volume; the formats are NIfTI, DICOM (a folder with one series, or a file)"],
])("no scan at all: %#", async (files, folder, line) => {
  await expect(readScan(files, folder, 1)).rejects.toThrow(new InputError(line));
});

test("slices of a folder and of the folders below it are no one volume", async () => {
  const series = Object.entries(fixtures.dicoms[0]!.files).map(([name, base64]) => file(name, base64!));
  const places = series.map((_, i) => (i === 0 ? "study" : "study/more"));
  await expect(readScan(series, "study", 1, places)).rejects.toThrow(
    "study: slices lie in the folders study and study/more: choose the folder of one series",
  );
  const { volume } = await readScan(series, "study", 1, series.map(() => "study/more"));
  expect(volume.shape).toEqual((await readScan(series, "study", 1)).volume.shape);
});

test("numbers are written as Python writes them", () => {
  expect([12346, 0.00001234, 0, 5, 1e9].map((n) => general(n, 4))).toEqual(["1.235e+04", "1.234e-05", "0", "5", "1e+09"]);
  expect([1, 0.1, 1e-7, 1e16, Number.NaN].map(python)).toEqual(["1.0", "0.1", "1e-07", "1e+16", "nan"]);
});
