import { describe, expect, test } from "vitest";
import { type Preprocessing, type Ranges, readMetadata } from "../src/network/artefact";
import { finish } from "../src/network/finish";
import { orientationTransform, resizePlane } from "../src/network/geometry";
import { channelScaling } from "../src/network/intensity";
import { squaredDistances } from "../src/network/parts";
import { warningsFor } from "../src/network/ranges";
import { restore, VolumeSlices } from "../src/network/slices";
import { InputError, type Triple } from "../src/scan/volume";
import { withValues } from "../src/worker/segment";
import { about, bytes, channel, fixtures, floats, volume } from "./fixtures";

const how = fixtures.artefacts.spec as Preprocessing;

test.each(fixtures.orientations)("axes: $name", ({ affine, orientation, transform }) => {
  expect(orientationTransform(affine, orientation)).toEqual(transform);
});

test.each(fixtures.resizes)("a plane of $from resized to $to has the very same floats", ({ plane, from, to, result }) => {
  const resized = resizePlane(Float32Array.from(plane), from[0]!, from[1]!, to[0]!, to[1]!);
  expect([...resized]).toEqual(result);
});

test.each(fixtures.scalings)("intensities: $how of $dtype", ({ dtype, how: normalization, values, scaling }) => {
  const rule = { ...how, normalization, clip_percentiles: [2, 97] } as Preprocessing;
  const { low, high, shift, scale } = channelScaling(channel(values, dtype), rule);
  const close = dtype === "float32" ? 1e-7 : 1e-12;
  [low, high, shift, scale].forEach((value, i) => expect(Math.abs(value - scaling[i]!)).toBeLessThanOrEqual(close * Math.abs(scaling[i]!)));
});

describe.each(fixtures.preparations)("a volume: $name", (row) => {
  const channels = row.channels.map((values) => channel(values, "int16"));
  const metadata = about({ preprocessing: row.spec, input: { channels: 1, height: null, width: null } });
  const slices = new VolumeSlices(volume(channels, row.shape, row.affine), metadata);

  test("becomes the very same network input", () => {
    const { window, count } = slices.grid;
    expect([window.rows, window.columns]).toEqual(row.window);
    const wanted = floats(row.input_base64);
    expect(slices.input(0, count)).toEqual(wanted);
    const area = wanted.length / count;
    expect(slices.input(count - 1, 1)).toEqual(wanted.subarray((count - 1) * area));
  });

  test("its logits become the same labels on its own grid", () => {
    const { count } = slices.grid;
    const logits = Float32Array.from(new Int8Array(bytes(row.logits_base64).buffer), (n) => n / 32);
    const labels = new Uint8Array(row.labels.length);
    for (let z = 0; z < count; z++) {
      restore(logits.subarray((z * logits.length) / count, ((z + 1) * logits.length) / count), 3, slices.grid, z, labels);
    }
    expect([...labels]).toEqual(row.labels);
  });
});

test("a fixed size that the volume does not fit is refused in words", () => {
  const { shape, affine, spec } = fixtures.preparations[0]!;
  const metadata = about({ preprocessing: { ...spec, spacing_mm: 0.2 }, input: { channels: 1, height: 16, width: 32 } });
  const scan = volume([channel(fixtures.preparations[0]!.channels[0]!, "int16")], shape, affine);
  expect(() => new VolumeSlices(scan, metadata)).toThrow(/^takes slices of 16 × 32, those of the volume have 80 × 96 after resampling/);
});

test.each(fixtures.finishings)("parts at $erosion_mm mm with voxels of $spacing", ({ labels, shape, spacing, erosion_mm, result }) => {
  const changed = Uint8Array.from(labels);
  finish(changed, shape as Triple, spacing as Triple, about({ postprocessing: { largest_component: true, erosion_mm } }));
  expect([...changed]).toEqual(result);
  const untouched = Uint8Array.from(labels);
  finish(untouched, shape as Triple, spacing as Triple, about({ postprocessing: { largest_component: false, erosion_mm } }));
  expect([...untouched]).toEqual(labels);
});

test("distances are exact, whatever the spacing", () => {
  const [shape, spacing]: [Triple, Triple] = [[7, 5, 4], [0.7, 1.3, 5]];
  const mask = Uint8Array.from({ length: 140 }, (_, i) => Number((i * 2654435761) % 17 === 0));
  const place = (i: number): number[] => [i % 7, Math.floor(i / 7) % 5, Math.floor(i / 35)];
  const inside = [...mask.keys()].filter((i) => mask[i]);
  expect(inside.length).toBeGreaterThan(3);
  squaredDistances(mask, shape, spacing).forEach((value, i) => {
    const nearest = Math.min(
      ...inside.map((j) => place(i).reduce((sum, at, axis) => sum + ((at - place(j)[axis]!) * spacing[axis]!) ** 2, 0)),
    );
    expect(value).toBeCloseTo(nearest, 9);
  });
});

test.each(fixtures.warnings)("an input unlike the training's gets the command line's warnings", ({ ranges, affine, shape, values, lines }) => {
  const scan = volume([channel(values, "float32")], shape, affine);
  expect(warningsFor(scan, about({ preprocessing: how, ranges: ranges as unknown as Ranges }))).toEqual(lines);
});

test.each([
  [[0, 255], Uint8Array],
  [[0, 300], Uint16Array],
  [[0, 70000], Uint32Array],
  [[-1, 255], Int16Array],
  [[-1, 300], Int32Array],
])("label values %j have the type of the command line", (values, kind) => {
  const classes = values.map((value, index) => ({ index, name: String(value), value, color: "#000000" }));
  const written = withValues(Uint8Array.of(1, 0), about({ classes }));
  expect(written.constructor).toBe(kind);
  expect([...written]).toEqual([values[1], values[0]]);
});

test("a whole artefact gives its metadata", () => {
  const found = readMetadata(bytes(fixtures.artefacts.whole), "model.onnx");
  expect(found.name).toBe(fixtures.artefacts.name);
  expect(found.preprocessing).toEqual(fixtures.artefacts.spec);
});

test.each(fixtures.artefacts.wrong)("refused as on the command line: $line", ({ base64, line }) => {
  expect(() => readMetadata(bytes(base64), "model.onnx")).toThrow(new InputError(line));
});

test("a newer schema is refused, and a newer attunet asked for", () => {
  const text = Buffer.from(bytes(fixtures.artefacts.whole)).toString("latin1").replace('"schema":2', '"schema":9');
  expect(() => readMetadata(Buffer.from(text, "latin1"), "model.onnx")).toThrow(/schema 9.*newer/);
});
