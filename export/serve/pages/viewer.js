// NIfTI files in a canvas: axial slices with a label map over them, the patient's right on the left, anterior above.

const TYPES = {
  2: [1, "getUint8"], 4: [2, "getInt16"], 8: [4, "getInt32"], 16: [4, "getFloat32"], 64: [8, "getFloat64"],
  256: [1, "getInt8"], 512: [2, "getUint16"], 768: [4, "getUint32"],
};
export const COLOURS = [[0, 0, 0], [230, 75, 53], [77, 187, 213], [0, 160, 135], [240, 200, 60], [180, 110, 220], [145, 209, 194], [250, 140, 40]];

/** The first volume of a NIfTI file, plain or gzipped: size of its axes, affine rows, and its values as floats. */
export async function readNifti(buffer) {
  let bytes = new Uint8Array(buffer);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    bytes = new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = [348, 540].includes(view.getInt32(0, true));
  const version = view.getInt32(0, little) === 540 ? 2 : view.getInt32(0, little) === 348 ? 1 : 0;
  if (!version) throw new Error("no NIfTI file");
  const wide = (at) => Number(view.getBigInt64(at, little));
  const size = [0, 1, 2].map((i) => Math.max(1, version === 2 ? wide(24 + 8 * i) : view.getInt16(42 + 2 * i, little)));
  const [width, get] = TYPES[view.getInt16(version === 2 ? 12 : 70, little)] ?? [];
  if (!get) throw new Error("voxels of a type that is not shown here");
  const start = version === 2 ? wide(168) : view.getFloat32(108, little);
  const number = (one, two) => (version === 2 ? view.getFloat64(two, little) : view.getFloat32(one, little));
  const slope = number(112, 176) || 1, intercept = number(112, 176) ? number(116, 184) : 0;
  const values = new Float32Array(size[0] * size[1] * size[2]);
  for (let i = 0; i < values.length; i++) values[i] = view[get](start + i * width, little) * slope + intercept;
  return { size, values, affine: affineOf(view, little, version) };
}

function affineOf(view, little, version) {
  const short = (one, two) => (version === 2 ? view.getInt32(two, little) : view.getInt16(one, little));
  const step = version === 2 ? 8 : 4;
  const number = (at) => (version === 2 ? view.getFloat64(at, little) : view.getFloat32(at, little));
  if (short(254, 348) > 0) {
    const first = version === 2 ? 400 : 280;
    return [0, 1, 2].map((row) => [0, 1, 2].map((column) => number(first + step * (4 * row + column))));
  }
  const pixdim = [0, 1, 2, 3].map((i) => number((version === 2 ? 104 : 76) + step * i));
  const side = pixdim[0] < 0 ? -1 : 1;
  if (short(252, 344) <= 0) return [[pixdim[1], 0, 0], [0, pixdim[2], 0], [0, 0, pixdim[3]]];
  const [b, c, d] = [0, 1, 2].map((i) => number((version === 2 ? 352 : 256) + step * i));
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const rotation = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  return rotation.map((row) => row.map((value, column) => value * pixdim[column + 1] * (column === 2 ? side : 1)));
}

/** Draws slices of a scan and its label map. */
export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.opacity = 0.5;
  }

  show(scan, labels) {
    this.scan = scan;
    this.labels = labels && labels.size.join() === scan.size.join() ? labels : null;
    const taken = new Set();
    // Which of the file's axes runs along which of the patient's (right, anterior, superior), the clearest first.
    this.axes = [2, 1, 0].map((world) => {
      const column = [0, 1, 2].filter((c) => !taken.has(c)).sort((p, q) => Math.abs(scan.affine[world][q]) - Math.abs(scan.affine[world][p]))[0];
      taken.add(column);
      return { column, up: scan.affine[world][column] >= 0, mm: Math.hypot(...scan.affine.map((row) => row[column])) || 1 };
    });
    const sample = Float32Array.from({ length: 20000 }, (_, i) => scan.values[Math.floor((i * scan.values.length) / 20000)]).sort();
    [this.low, this.high] = [sample[200], sample[19800]];
    this.count = scan.size[this.axes[0].column];
    this.draw(this.fullestSlice());
  }

  /** The slice with the most labels, the middle one without any. */
  fullestSlice() {
    if (!this.labels) return this.count >> 1;
    const counts = new Array(this.count).fill(0), [x, y] = this.scan.size, axis = this.axes[0].column;
    this.labels.values.forEach((value, i) => {
      if (value) counts[axis === 0 ? i % x : axis === 1 ? Math.floor(i / x) % y : Math.floor(i / (x * y))]++;
    });
    const best = counts.indexOf(Math.max(...counts));
    return this.axes[0].up ? best : this.count - 1 - best;
  }

  draw(number) {
    this.number = number;
    const [depth, rows, columns] = this.axes, size = this.scan.size, strides = [1, size[0], size[0] * size[1]];
    const height = size[rows.column], width = size[columns.column];
    const base = (depth.up ? number : this.count - 1 - number) * strides[depth.column];
    const image = new ImageData(width, height);
    this.shown = 0;
    for (let r = 0; r < height; r++) {
      for (let c = 0; c < width; c++) {
        const row = rows.up ? height - 1 - r : r, column = columns.up ? width - 1 - c : c;
        const at = base + row * strides[rows.column] + column * strides[columns.column], to = 4 * (r * width + c);
        const grey = (255 * (this.scan.values[at] - this.low)) / (this.high - this.low || 1);
        const label = this.labels ? this.labels.values[at] : 0, colour = COLOURS[1 + ((label - 1) % (COLOURS.length - 1))];
        const share = label > 0 ? this.opacity : 0;
        this.shown += label > 0;
        for (let i = 0; i < 3; i++) image.data[to + i] = (1 - share) * Math.min(255, Math.max(0, grey)) + share * (colour ? colour[i] : 0);
        image.data[to + 3] = 255;
      }
    }
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(image, 0, 0);
    this.canvas.width = 512;
    this.canvas.height = Math.max(1, Math.round((512 * height * rows.mm) / (width * columns.mm)));
    this.canvas.getContext("2d").drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
  }
}
