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
  ["c.dcm", "nonsense"],
  ["c", ""],
])("a file that may be a slice is not left out: %s", async (name, content) => {
  const [one, two] = Object.values(fixtures.dicoms[0]!.files) as [string, string];
  const files = [file("a.dcm", one), file("b.dcm", two), new File(["hello"], "notes.txt")];
  expect((await readScan(files, "series", 1)).volume.shape[2]).toBe(2);
  const line = `${name}: holds no DICOM, so a slice may be missing: copy or download it again, or take it away`;
  await expect(readScan([...files, new File([content], name)], "series", 1)).rejects.toThrow(new InputError(line));
});

test.each(fixtures.wrong_files)("refused as on the command line: $line", async ({ name, base64, line }) => {
  await expect(readScan([file(name, base64)], null, 1)).rejects.toThrow(new InputError(line));
});

test.each(fixtures.wrong_series)("a series is refused as on the command line: $line", async ({ files, line }) => {
  const series = Object.entries(files).map(([name, base64]) => file(name, base64!));
  await expect(readScan(series, "series", 1)).rejects.toThrow(new InputError(line));
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

test("numbers are written as Python writes them", () => {
  expect([12346, 0.00001234, 0, 5, 1e9].map((n) => general(n, 4))).toEqual(["1.235e+04", "1.234e-05", "0", "5", "1e+09"]);
  expect([1, 0.1, 1e-7, 1e16, Number.NaN].map(python)).toEqual(["1.0", "0.1", "1e-07", "1e+16", "nan"]);
});
