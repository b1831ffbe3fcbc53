// A client of an ordinary artefact, written from docs/artefact.md: the numbers are those of the page's steps.
// node client.mjs MODEL.onnx SCAN.json LABELS.json; SCAN: {"shape": [C, X, Y, Z], "data": [...], "affine": [[...] x 4]}, row-major.
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";

// The value of metadata_props["attunet"]: field 14 of ModelProto, an entry with the key in field 1 and the value in field 2.
function metadata(bytes) {
  const varint = (at) => {
    let value = 0, factor = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * factor; factor *= 128; } while (byte & 128);
    return [value, at];
  };
  function* fields(at, end) {
    while (at < end) {
      let tag, length;
      [tag, at] = varint(at);
      const wire = tag % 8, number = Math.floor(tag / 8);
      if (wire === 2) { [length, at] = varint(at); yield [number, at, at + length]; at += length; }
      else if (wire === 0) [, at] = varint(at);
      else at += wire === 1 ? 8 : 4;
    }
  }
  const text = (start, end) => Buffer.from(bytes.subarray(start, end)).toString("utf8");
  for (const [number, start, end] of fields(0, bytes.length)) {
    if (number !== 14) continue;
    const entry = Object.fromEntries([...fields(start, end)].map(([n, s, e]) => [n, text(s, e)]));
    if (entry[1] === "attunet") return JSON.parse(entry[2]);
  }
  throw new Error("not an attunet artefact");
}

// The orthogonal factor of the polar decomposition, by Newton's iteration: the mean of a matrix and its inverse's transpose.
function nearestRotation(rows) {
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  for (let step = 0; step < 50; step++) {
    const cofactors = [cross(rows[1], rows[2]), cross(rows[2], rows[0]), cross(rows[0], rows[1])];
    const determinant = rows[0].reduce((sum, v, i) => sum + v * cofactors[0][i], 0);
    rows = rows.map((row, r) => row.map((v, c) => (v + cofactors[r][c] / determinant) / 2));
  }
  return rows;
}

// The axis of the scan that runs to each of the codes, and whether it runs the other way (step 1).
function orientation(affine, codes) {
  const world = { R: [0, 1], L: [0, -1], A: [1, 1], P: [1, -1], S: [2, 1], I: [2, -1] };
  const spacing = [0, 1, 2].map((c) => Math.hypot(affine[0][c], affine[1][c], affine[2][c]));
  if (!codes) return { axes: [0, 1, 2], flips: [false, false, false], spacing };
  const rotation = nearestRotation([0, 1, 2].map((w) => spacing.map((length, c) => affine[w][c] / length)));
  const size = (w, c) => Math.abs(rotation[w][c]), greatest = (c) => Math.max(size(0, c), size(1, c), size(2, c));
  const axisOf = {};
  for (const c of [0, 1, 2].sort((a, b) => greatest(b) - greatest(a))) {
    const [w] = [0, 1, 2].filter((w) => !(w in axisOf)).sort((a, b) => size(b, c) - size(a, c));
    axisOf[w] = c;
  }
  const axes = [...codes].map((code) => axisOf[world[code][0]]);
  const flips = [...codes].map((code, i) => Math.sign(rotation[world[code][0]][axes[i]]) !== world[code][1]);
  return { axes, flips, spacing };
}

const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

function percentile(sorted, p) {
  const rank = ((sorted.length - 1) * p) / 100, below = Math.floor(rank);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (rank - below);
}

function scaling(voxels, rules) { // 3
  if (rules.normalization === "ct") {
    const [low, high] = rules.window;
    return { low, high, mean: (low + high) / 2, deviation: (high - low) / 2 };
  }
  const sorted = Float64Array.from(voxels).sort();
  if (rules.normalization === "none") return { low: sorted[0], high: sorted.at(-1), mean: 0, deviation: 1 };
  const [low, high] = rules.clip_percentiles.map((p) => percentile(sorted, p));
  let sum = 0, squares = 0;
  for (const v of voxels) sum += clamp(v, low, high);
  const mean = sum / voxels.length;
  for (const v of voxels) squares += (clamp(v, low, high) - mean) ** 2;
  return { low, high, mean, deviation: Math.sqrt(squares / voxels.length) || 1 };
}

function weights(nIn, nOut) { // 4: for each new pixel, the first old one and the weights from there
  const s = Math.max(1, nIn / nOut);
  return Array.from({ length: nOut }, (_, u) => {
    const c = ((u + 0.5) * nIn) / nOut - 0.5, first = Math.max(0, Math.ceil(c - s)), row = [];
    for (let i = first; i < nIn && i <= c + s; i++) row.push(Math.max(0, 1 - Math.abs(i - c) / s));
    const total = row.reduce((a, b) => a + b, 0);
    return [first, row.map((w) => w / total)];
  });
}

function resize(plane, [rows, columns], [newRows, newColumns]) {
  const across = weights(columns, newColumns), down = weights(rows, newRows);
  const half = new Float64Array(rows * newColumns), out = new Float64Array(newRows * newColumns);
  for (let r = 0; r < rows; r++) across.forEach(([first, w], c) => {
    half[r * newColumns + c] = w.reduce((sum, v, i) => sum + v * plane[r * columns + first + i], 0);
  });
  down.forEach(([first, w], r) => {
    for (let c = 0; c < newColumns; c++) out[r * newColumns + c] = w.reduce((sum, v, i) => sum + v * half[(first + i) * newColumns + c], 0);
  });
  return out;
}

const roundHalfToEven = (v) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));

// Numbers of the connected parts of a mask (0: none) and their sizes; voxels belong together where faces touch.
function parts(mask, shape) {
  const numbers = new Int32Array(mask.length), sizes = [0], [, Y, Z] = shape, steps = [Y * Z, Z, 1];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || numbers[start]) continue;
    const number = sizes.length, stack = [start];
    numbers[start] = number;
    sizes.push(0);
    while (stack.length) {
      const at = stack.pop();
      sizes[number]++;
      const place = [Math.floor(at / steps[0]), Math.floor(at / Z) % Y, at % Z];
      for (let axis = 0; axis < 3; axis++) for (const step of [-1, 1]) {
        const next = at + step * steps[axis], there = place[axis] + step;
        if (there >= 0 && there < shape[axis] && mask[next] && !numbers[next]) { numbers[next] = number; stack.push(next); }
      }
    }
  }
  return [numbers, sizes];
}

function erode(mask, shape, radii) {
  const [, Y, Z] = shape, steps = [Y * Z, Z, 1];
  let inside = mask;
  radii.forEach((radius, axis) => {
    const before = inside;
    inside = before.map((_, at) => {
      const place = Math.floor(at / steps[axis]) % shape[axis];
      for (let k = -radius; k <= radius; k++) if (place + k < 0 || place + k >= shape[axis] || !before[at + k * steps[axis]]) return 0;
      return 1;
    });
  });
  return inside;
}

function cut(part, shape, spacing, erosion) { // 5, the second half
  const radii = shape.map((n, axis) => (n > 1 ? Math.floor(erosion / spacing[axis] + 1e-6) : 0));
  if (radii.every((r) => r === 0)) return part;
  const [pieces, sizes] = parts(erode(part, shape, radii), shape), most = Math.max(...sizes);
  if (sizes.length <= 2 || sizes.slice(1).every((size) => size === most)) return part;
  const [, Y, Z] = shape, groups = [[], []];
  const place = (at) => [Math.floor(at / (Y * Z)), Math.floor(at / Z) % Y, at % Z];
  pieces.forEach((number, at) => { if (number) groups[sizes[number] === most ? 0 : 1].push(place(at)); });
  const nearest = (at, group) => {
    const p = place(at);
    return Math.sqrt(group.reduce((least, q) => Math.min(least, q.reduce((sum, v, a) => sum + ((v - p[a]) * spacing[a]) ** 2, 0)), Infinity));
  };
  const own = part.map((v, at) => (v && nearest(at, groups[0]) <= nearest(at, groups[1]) * 1.000000001 ? 1 : 0));
  const [numbers, counts] = parts(own, shape), largest = Math.max(...counts);
  return own.map((_, at) => (numbers[at] && counts[numbers[at]] === largest ? 1 : 0));
}

function finish(indices, shape, spacing, rules, numClasses) { // 5
  if (!rules.largest_component) return;
  for (let index = 1; index < numClasses; index++) {
    const mask = Uint8Array.from(indices, (v) => (v === index ? 1 : 0)), [numbers, sizes] = parts(mask, shape), most = Math.max(...sizes);
    const kept = new Uint8Array(mask.length);
    sizes.forEach((size, number) => {
      if (number && size === most) cut(Uint8Array.from(numbers, (n) => (n === number ? 1 : 0)), shape, spacing, rules.erosion_mm).forEach((v, at) => { kept[at] |= v; });
    });
    mask.forEach((v, at) => { if (v && !kept[at]) indices[at] = 0; });
  }
}

const [, , model, scanFile, out] = process.argv;
const bytes = readFileSync(model), about = metadata(bytes), rules = about.preprocessing;
if (about.schema > 2) throw new Error("made by a newer attunet");
const scan = JSON.parse(readFileSync(scanFile)), [C, ...shape] = scan.shape;
const { axes, flips, spacing } = orientation(scan.affine, rules.orientation); // 1
const [columnAxis, rowAxis] = [0, 1, 2].filter((axis) => axis !== rules.slice_axis); // 2
const order = [rules.slice_axis, rowAxis, columnAxis], [Z, Y, X] = order.map((axis) => shape[axes[axis]]);
const strides = [shape[1] * shape[2], shape[2], 1];
const nativeIndex = (...place) => order.reduce((sum, axis, i) => {
  const length = shape[axes[axis]], at = flips[axis] ? length - 1 - place[i] : place[i];
  return sum + at * strides[axes[axis]];
}, 0);

const size = shape[0] * shape[1] * shape[2], small = [[rowAxis, Y], [columnAxis, X]].map(([axis, n]) =>
  rules.spacing_mm === null ? n : Math.max(1, roundHalfToEven((n * spacing[axes[axis]]) / rules.spacing_mm)));
const window = small.map((n, i) => Math.max(Math.ceil(n / 16) * 16, rules.size[i]));
const [H, W] = window, [top, left] = small.map((n, i) => Math.floor((window[i] - n) / 2));
const slices = new Float32Array(Z * C * H * W);
for (let c = 0; c < C; c++) {
  const voxels = scan.data.slice(c * size, (c + 1) * size), { low, high, mean, deviation } = scaling(voxels, rules);
  for (let z = 0; z < Z; z++) {
    const plane = new Float64Array(Y * X);
    for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++) plane[y * X + x] = (clamp(voxels[nativeIndex(z, y, x)], low, high) - mean) / deviation;
    const start = (z * C + c) * H * W, resized = resize(plane, [Y, X], small);
    slices.fill((low - mean) / deviation, start, start + H * W); // 5
    for (let y = 0; y < small[0]; y++) slices.set(resized.subarray(y * small[1], (y + 1) * small[1]), start + (top + y) * W + left);
  }
}

const session = await ort.InferenceSession.create(model), reach = (rules.context_slices - 1) / 2, K = about.classes.length;
const indices = new Uint8Array(size), channels = C * rules.context_slices;
for (let z = 0; z < Z; z++) {
  const input = new Float32Array(channels * H * W);
  for (let k = -reach; k <= reach; k++) { // 6
    const neighbour = clamp(z + k, 0, Z - 1);
    input.set(slices.subarray(neighbour * C * H * W, (neighbour + 1) * C * H * W), (k + reach) * C * H * W);
  }
  const { logits } = await session.run({ slices: new ort.Tensor("float32", input, [1, channels, H, W]) }, ["logits"]);
  const native = Array.from({ length: K }, (_, c) => {
    const inside = new Float64Array(small[0] * small[1]); // 1 of the way back
    for (let y = 0; y < small[0]; y++) inside.set(logits.data.subarray((c * H + top + y) * W + left, (c * H + top + y) * W + left + small[1]), y * small[1]);
    return resize(inside, small, [Y, X]); // 2
  });
  for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++) { // 3, 4
    let best = 0;
    for (let c = 1; c < K; c++) if (native[c][y * X + x] > native[best][y * X + x]) best = c;
    indices[nativeIndex(z, y, x)] = best;
  }
}
finish(indices, shape, spacing, about.postprocessing, K);
writeFileSync(out, JSON.stringify(Array.from(indices, (i) => about.classes[i].value))); // 6
