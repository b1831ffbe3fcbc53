"use strict";
// Outlines of label maps: the borders between voxels, as lines over what NiiVue has drawn.

// Runs along the voxels' edges of one slice, as [u0, v0, u1, v1] in voxels. at(u, v): label, 0 for what is not shown.
function outlineRuns(at, nu, nv) {
  const runs = [];
  for (let u = 0; u <= nu; u++) {
    let start = -1;
    for (let v = 0; v <= nv; v++) {
      const edge = v < nv && (u > 0 ? at(u - 1, v) : 0) !== (u < nu ? at(u, v) : 0);
      if (edge && start < 0) start = v;
      if (!edge && start >= 0) {
        runs.push([u, start, u, v]);
        start = -1;
      }
    }
  }
  for (let v = 0; v <= nv; v++) {
    let start = -1;
    for (let u = 0; u <= nu; u++) {
      const edge = u < nu && (v > 0 ? at(u, v - 1) : 0) !== (v < nv ? at(u, v) : 0);
      if (edge && start < 0) start = u;
      if (!edge && start >= 0) {
        runs.push([start, v, u, v]);
        start = -1;
      }
    }
  }
  return runs;
}

// The axes of a plane of NiiVue: 0 axial, 1 coronal, 2 sagittal.
const planeAxes = [[0, 1, 2], [0, 2, 1], [1, 2, 0]];

// From voxels' edges in one tile to pixels of the canvas. tile: of niivue.screenSlices; half: half the extent in mm along each axis.
function tilePlace(tile, spacing, half) {
  const [first, second] = planeAxes[tile.axCorSag];
  let [left, top, width, height] = tile.leftTopWidthHeight;
  const mirrored = width < 0;
  if (mirrored) [left, width] = [left + width, -width];
  const across = (u) => (u * spacing[first] - half[first] - tile.leftTopMM[0]) / tile.fovMM[0];
  const up = (v) => (v * spacing[second] - half[second] - tile.leftTopMM[1]) / tile.fovMM[1];
  return {
    x: (u) => left + (mirrored ? 1 - across(u) : across(u)) * width,
    y: (v) => top + (1 - up(v)) * height,
    clip: [left, top, width, height],
  };
}

// layers: {labels, color, dash, width}, drawn in their order, each with a dark rim that shows on bright tissue.
function drawOutlines(context, tile, volume, layers, visible, index) {
  const [first, second, across] = planeAxes[tile.axCorSag];
  const place = tilePlace(tile, volume.spacing, volume.half);
  const steps = [1, volume.shape[0], volume.shape[0] * volume.shape[1]];
  const start = index[across] * steps[across];
  context.save();
  context.beginPath();
  context.rect(...place.clip);
  context.clip();
  for (const layer of layers) {
    const at = (u, v) => {
      const label = layer.labels[start + u * steps[first] + v * steps[second]];
      return visible[label] ? label : 0;
    };
    context.beginPath();
    for (const [u0, v0, u1, v1] of outlineRuns(at, volume.shape[first], volume.shape[second])) {
      context.moveTo(place.x(u0), place.y(v0));
      context.lineTo(place.x(u1), place.y(v1));
    }
    context.lineCap = "square";
    context.setLineDash([]);
    context.strokeStyle = "rgba(0, 0, 0, 0.65)";
    context.lineWidth = layer.width + 2 * devicePixelRatio;
    context.stroke();
    context.setLineDash(layer.dash);
    context.lineCap = layer.dash.length ? "butt" : "square";
    context.strokeStyle = layer.color;
    context.lineWidth = layer.width;
    context.stroke();
  }
  context.restore();
}

// Thin lines through the middle of a voxel that leave its surroundings free.
function drawCrosshair(context, tile, volume, index) {
  const [first, second] = planeAxes[tile.axCorSag];
  const place = tilePlace(tile, volume.spacing, volume.half);
  const [left, top, width, height] = place.clip;
  const [x, y, gap] = [place.x(index[first] + 0.5), place.y(index[second] + 0.5), 14 * devicePixelRatio];
  const lines = [[left, y, x - gap, y], [x + gap, y, left + width, y], [x, top, x, y - gap], [x, y + gap, x, top + height]];
  context.save();
  context.beginPath();
  context.rect(...place.clip);
  context.clip();
  context.beginPath();
  lines.filter(([x0, y0, x1, y1]) => x1 > x0 || y1 > y0).forEach(([x0, y0, x1, y1]) => {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  });
  context.strokeStyle = "rgba(240, 228, 66, 0.55)";
  context.lineWidth = devicePixelRatio;
  context.stroke();
  context.restore();
}
