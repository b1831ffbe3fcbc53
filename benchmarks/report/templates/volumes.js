"use strict";
// Volumes of the page: unpacking them, and NIfTI files in memory for NiiVue. X runs fastest.

async function unpack(id) {
  const packed = Uint8Array.from(atob(byId(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackText(id) {
  return new TextDecoder().decode(await unpack(id));
}

let niivue = null;
function loadNiivue() {
  niivue ??= unpackText("bundle-1").then((source) => import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
  return niivue;
}

// A NIfTI-1 file of bytes around the middle of the room: an affine without rotation, since cases are kept in viewing axes.
// extent: of the whole grid in mm, so that a coarser map covers the same place. range: what 0 and 255 stand for.
function nifti(bytes, { shape, extent, channels = 1, range = [0, 255], labels = false }) {
  const buffer = new ArrayBuffer(352 + bytes.length);
  const view = new DataView(buffer);
  const float = (at, value) => view.setFloat32(at, value, true);
  const short = (at, value) => view.setInt16(at, value, true);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((length, n) => short(40 + 2 * n, length));
  short(68, labels ? 1002 : 0); // intent: labels are never interpolated
  short(70, channels === 3 ? 128 : 2); // RGB24 or uint8
  short(72, 8 * channels);
  const spacing = extent.map((length, axis) => length / shape[axis]);
  [1, ...spacing, 1, 1, 1, 1].forEach((size, n) => float(76 + 4 * n, size));
  float(108, 352);
  if (channels === 1 && !labels) {
    float(112, (range[1] - range[0]) / 255);
    float(116, range[0]);
  } else float(112, 1);
  view.setUint8(123, 2); // mm
  short(254, 1); // the affine in srow is the scanner's
  spacing.forEach((size, axis) => {
    float(280 + 16 * axis + 4 * axis, size);
    float(280 + 16 * axis + 12, -size * (shape[axis] - 1) / 2);
  });
  [0x6e, 0x2b, 0x31, 0].forEach((byte, n) => view.setUint8(344 + n, byte));
  new Uint8Array(buffer, 352).set(bytes);
  return buffer;
}
