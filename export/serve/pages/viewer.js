// A scan in NiiVue with its label map over it, the patient's right on the left.

export const COLOURS = [[0, 0, 0], [230, 75, 53], [77, 187, 213], [0, 160, 135], [240, 200, 60], [180, 110, 220], [145, 209, 194], [250, 140, 40]];
const AXES = { axial: 2, coronal: 1, sagittal: 0, planes: 2 }; // of the patient: right, anterior, superior
const OPTIONS = {
  isRadiologicalConvention: true, sagittalNoseLeft: true, showAllOrientationMarkers: true, isCornerOrientationText: false,
  crosshairColor: [1, 1, 1, 0.4], crosshairWidth: 0.3, crosshairWidthUnit: "percent", multiplanarPadPixels: 4, multiplanarShowRender: 0,
  dragAndDropEnabled: false, loadingText: "", logLevel: "error",
};

export class Viewer {
  /** moved: called when another slice is seen. */
  constructor(canvas, moved) {
    Object.assign(this, { canvas, moved, view: "axial", opacity: 0.5 });
  }

  async start() {
    this.module = await import("/niivue.js");
    this.niivue = new this.module.Niivue(OPTIONS);
    this.niivue.onLocationChange = () => this.moved();
    await this.niivue.attachToCanvas(this.canvas);
  }

  /**
   * Volumes of a label map and its scan, which lies where its label map does, however NiiVue reads its header; without the scan where
   * NiiVue does not read it on the same grid (DICOM, pictures).
   */
  async read(scan, labelMap) {
    await (this.ready ??= this.start());
    const labels = await this.readVolume(labelMap, "labels.nii.gz");
    const { qform_code, sform_code } = labels.hdr;
    if (!qform_code && !sform_code) place(labels, { affine: toTheLeft(labels.hdr), pixDims: labels.hdr.pixDims });
    const image = await this.readScan(scan).catch(() => null);
    if (!image || gridOf(image) !== gridOf(labels)) return { labels, image: null };
    place(image, labels.hdr);
    return { labels, image };
  }

  show({ labels, image }, classes) {
    while (this.niivue.volumes.length) this.niivue.removeVolumeByIndex(0);
    if (image) this.niivue.addVolume(image);
    colour(labels, classes);
    labels.opacity = image ? this.opacity : 1;
    this.niivue.addVolume(labels);
    this.niivue.scene.crosshairPos = this.niivue.vox2frac(centreOf(labels));
    this.setView(this.view);
  }

  async readScan(file) {
    const ending = file.name.toLowerCase().match(/\.(nii|nii\.gz|nrrd|mha|mgh|mgz)$/)?.[0];
    return ending ? this.readVolume(await file.arrayBuffer(), `scan${ending}`) : null; // of others NiiVue asks the server by name
  }

  readVolume(buffer, name) {
    return this.module.NVImage.loadFromUrl({ url: name, buffer, name });
  }

  setView(view) {
    this.view = view;
    this.niivue.setSliceType(view === "planes" ? this.module.SLICE_TYPE.MULTIPLANAR : 2 - AXES[view]);
    this.goTo(this.slice);
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.niivue.volumes.length > 1) this.niivue.setOpacity(1, opacity);
  }

  get count() {
    return this.niivue.volumes[0].dimsRAS[AXES[this.view] + 1];
  }

  get slice() {
    return Math.min(Math.floor(this.niivue.scene.crosshairPos[AXES[this.view]] * this.count), this.count - 1);
  }

  goTo(slice) {
    this.niivue.scene.crosshairPos[AXES[this.view]] = (slice + 0.5) / this.count;
    this.niivue.drawScene();
    this.moved();
  }
}

function gridOf({ hdr }) {
  return hdr.dims.slice(1, 4).map((length) => Math.max(length, 1)).join();
}

function place(volume, { affine, pixDims }) {
  Object.assign(volume.hdr, { affine, pixDims });
  volume.calculateRAS();
}

/** The affine by which a header without an orientation is read: axes to left, anterior and superior, around the centre. */
function toTheLeft({ dims, pixDims }) {
  const steps = [-pixDims[1], pixDims[2], pixDims[3]];
  return [...steps.map((step, axis) => [0, 1, 2].map((other) => (other === axis ? step : 0)).concat((-step * (Math.max(dims[axis + 1], 1) - 1)) / 2)), [0, 0, 0, 1]];
}

/** Gives the voxels of a label map the numbers of their classes, and these their colours. */
function colour(labels, classes) {
  const numbers = new Map(classes.map(({ value }, number) => [value, number])), values = labels.img;
  labels.img = new Uint8Array(values.length);
  for (let at = 0; at < values.length; at++) labels.img[at] = numbers.get(values[at]) ?? 0; // Uint8Array.from takes 15 times as long
  Object.assign(labels.hdr, { datatypeCode: 2, numBitsPerVoxel: 8, scl_slope: 1, scl_inter: 0 });
  const colours = classes.map((_, number) => COLOURS[number && 1 + ((number - 1) % (COLOURS.length - 1))]);
  const [R, G, B] = [0, 1, 2].map((channel) => colours.map((one) => one[channel]));
  labels.setColormapLabel({ R, G, B, A: colours.map((_, number) => (number ? 255 : 0)), I: colours.map((_, number) => number) });
}

/** The middle of what is labelled, in voxels; of the volume where nothing is. */
function centreOf({ img, hdr }) {
  const [, nx, ny, nz] = hdr.dims, sum = [0, 0, 0];
  let count = 0;
  img.forEach((value, at) => {
    if (!value) return;
    count++;
    [at % nx, Math.floor(at / nx) % ny, Math.floor(at / (nx * ny))].forEach((place, axis) => (sum[axis] += place));
  });
  return count ? sum.map((one) => Math.round(one / count)) : [nx >> 1, ny >> 1, nz >> 1];
}
