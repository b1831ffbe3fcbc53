"use strict";
// A case in NiiVue: the scan, one coloured layer over it, and outlines on a canvas above.

const PLANES = 3; // NiiVue's slice types; a single plane's is 2 minus the axis that slices are stacked along
const differenceColors = ["#56B4E9", "#E69F00", "#CC79A7"]; // missed, too much, another class

class Viewer {
  constructor(canvas, overlay) {
    Object.assign(this, { canvas, overlay, changed: () => {}, windowed: () => {}, outlines: [], visible: [] });
  }

  async start() {
    const { Niivue } = await loadNiivue();
    this.niivue = new Niivue({
      sagittalNoseLeft: true,
      showAllOrientationMarkers: true,
      fontColor: [1, 1, 1, 1],
      fontMinPx: 15,
      crosshairWidth: 0, // ours is drawn with the outlines
      multiplanarShowRender: 0,
      multiplanarPadPixels: 4,
      scrollRequiresFocus: true,
      dragAndDropEnabled: false,
      viewModeHotKey: "",
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      isAntiAlias: false,
      logLevel: "error",
    });
    await this.niivue.attachToCanvas(this.canvas);
    this.niivue.setDrawingEnabled(false);
    this.niivue.onLocationChange = () => this.changed();
    this.niivue.onIntensityChange = () => this.windowed();
    const draw = this.niivue.drawScene.bind(this.niivue);
    this.niivue.drawScene = () => {
      const result = draw();
      this.drawOverlay();
      return result;
    };
  }

  async open(about) {
    this.about = about;
    this.volumes = {};
    const extent = about.shape.map((length, axis) => length * about.spacing[axis]);
    this.grid = { shape: about.shape, spacing: about.spacing, half: extent.map((length) => length / 2) };
    this.extent = extent;
    await this.load(`${about.prefix}-image`);
    await this.load(`${about.prefix}-truth`);
    for (const layer of about.layers) await this.load(`${about.prefix}-labels-${layer.index}`);
    while (this.niivue.volumes.length) this.niivue.removeVolumeByIndex(0);
    this.niivue.opts.isRadiologicalConvention = about.oriented; // patient's right on the left; pictures as they are
    this.niivue.opts.isOrientationTextVisible = about.oriented;
    const file = nifti(this.volumes[`${about.prefix}-image`], { ...about, extent });
    await this.niivue.loadFromArrayBuffer(file, "scan.nii");
    this.fill = null;
    this.setWindow(...about.window.map((value) => this.valueOf(value)));
  }

  async load(id) {
    this.volumes[id] ??= await unpack(id);
    return this.volumes[id];
  }

  valueOf(byte) {
    const [low, high] = this.about.range;
    return low + ((high - low) * byte) / 255;
  }

  get window() {
    const { cal_min: low, cal_max: high } = this.niivue.volumes[0];
    return [low, high];
  }

  setWindow(low, high) {
    if (this.about.channels === 3) return;
    Object.assign(this.niivue.volumes[0], { cal_min: low, cal_max: Math.max(high, low + 1e-6) });
    this.niivue.updateGLVolume();
  }

  setView(view) {
    this.niivue.setSliceType(view === "planes" ? PLANES : 2 - this.about.sliceAxis);
  }

  // The voxel under the crosshair.
  get index() {
    return this.about.shape.map((length, axis) => {
      const place = Math.floor(this.niivue.scene.crosshairPos[axis] * length);
      return Math.max(0, Math.min(length - 1, place));
    });
  }

  moveTo(index) {
    this.about.shape.forEach((length, axis) => (this.niivue.scene.crosshairPos[axis] = (index[axis] + 0.5) / length));
    this.niivue.drawScene();
    this.changed();
  }

  offset([x, y, z]) {
    const [nx, ny] = this.about.shape;
    return x + nx * (y + ny * z);
  }

  // Replaces the coloured layer. fill: {kind: "labels" | "difference" | "attention", ...}, or null.
  async setFill(fill, opacity) {
    while (this.niivue.volumes.length > 1) this.niivue.removeVolumeByIndex(1);
    this.fill = fill;
    if (!fill) return this.niivue.updateGLVolume();
    const made = fill.kind === "attention" ? await this.attentionFile(fill) : this.labelFile(fill);
    await this.niivue.loadFromArrayBuffer(made.file, "layer.nii");
    const volume = this.niivue.volumes[1];
    if (made.colors) volume.setColormapLabel(made.colors);
    else Object.assign(volume, { colormap: "inferno", cal_min: made.low, cal_max: made.high });
    this.niivue.setOpacity(1, opacity);
  }

  labelFile({ kind, labels }) {
    const { visible } = this;
    const { undrawn } = this.about; // classes of whose predictions nothing is known
    const truth = this.volumes[`${this.about.prefix}-truth`];
    const bytes = new Uint8Array(truth.length);
    const shown = (label) => (visible[label] ? label : 0);
    for (let n = 0; n < bytes.length; n++) {
      const [real, got] = [shown(truth[n]), shown(labels[n])];
      const known = undrawn.includes(got) ? 0 : got;
      if (kind === "labels") bytes[n] = got;
      else if (real !== known && truth[n] !== 255) bytes[n] = known === 0 ? 1 : real === 0 ? 2 : 3;
    }
    const colors = kind === "labels" ? report.classes.map((one) => one.color) : differenceColors;
    const channel = (at) => [0, ...colors.map((color) => parseInt(color.slice(at, at + 2), 16))];
    const names = { R: channel(1), G: channel(3), B: channel(5), A: [0, ...colors.map(() => 255)], I: [0, ...colors.map((_, n) => n + 1)] };
    return { file: nifti(bytes, { shape: this.about.shape, extent: this.extent, labels: true }), colors: names };
  }

  async attentionFile({ map }) {
    const bytes = await this.load(map.id);
    // From 1, since NiiVue shows nothing of what is at the lower end.
    const scaled = bytes.map((value) => 1 + 254 * Math.max(0, Math.min(1, (value - map.low) / (map.high - map.low))));
    return { file: nifti(scaled, { shape: map.shape, extent: this.extent }), low: 0, high: 255 };
  }

  // The value of an attention map under the crosshair, 0 to 1.
  attentionAt({ map }) {
    const [x, y, z] = this.index.map((place, axis) => Math.floor(((place + 0.5) / this.about.shape[axis]) * map.shape[axis]));
    return this.volumes[map.id][x + map.shape[0] * (y + map.shape[1] * z)] / 255;
  }

  drawOverlay() {
    if (!this.about || !this.niivue.volumes.length) return;
    const { width, height } = this.canvas;
    if (this.overlay.width !== width || this.overlay.height !== height) Object.assign(this.overlay, { width, height });
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, width, height);
    for (const tile of this.niivue.screenSlices) {
      if (tile.axCorSag > 2) continue;
      drawOutlines(context, tile, this.grid, this.outlines, this.visible, this.index);
      drawCrosshair(context, tile, this.grid, this.index);
    }
  }
}
