/** The scan with its label map in three planes, through NiiVue. */

import { Niivue, NVImage, SLICE_TYPE } from "@niivue/niivue";
import type { LabelClass } from "../network/artefact";
import type { Result } from "../worker/messages";

export const VIEWS = {
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  all: SLICE_TYPE.MULTIPLANAR,
} as const;
export type View = keyof typeof VIEWS;

export class Viewer {
  private readonly niivue: Niivue;
  private attached = false;
  private shown: Result | undefined;
  private opacity = 0.5;
  private view: View = "axial";

  /** tell: a line about the voxel under the crosshair. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly tell: (line: string) => void,
  ) {
    this.niivue = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.45],
      crosshairWidth: 1.2,
      crosshairWidthUnit: "mm",
      fontColor: [0.85, 0.87, 0.9, 1],
      isRadiologicalConvention: true,
      sliceType: SLICE_TYPE.AXIAL,
      isCornerOrientationText: false,
      showAllOrientationMarkers: true,
      isNearestInterpolation: false,
      multiplanarPadPixels: 6,
      dragAndDropEnabled: false,
      logLevel: "error",
      loadingText: "",
    });
  }

  /** Shows a scan, unless another one comes while it is read. The canvas is busy until it is drawn. */
  async show(result: Result, classes: readonly LabelClass[]): Promise<void> {
    this.shown = result;
    this.canvas.ariaBusy = "true";
    try {
      await this.draw(result, classes);
    } finally {
      if (this.shown === result) this.canvas.ariaBusy = "false";
    }
  }

  private async draw(result: Result, classes: readonly LabelClass[]): Promise<void> {
    if (!this.attached) {
      await this.niivue.attachToCanvas(this.canvas);
      this.attached = true;
    }
    while (this.niivue.volumes.length > 0) this.niivue.removeVolume(this.niivue.volumes[0]!);
    const options = { ignoreZeroVoxels: false };
    const image = await NVImage.loadFromUrl({ url: "scan.nii", buffer: result.image, name: "scan.nii", ...options });
    const labels = await NVImage.loadFromUrl({ url: "labels.nii", buffer: result.overlay, name: "labels.nii", ...options });
    if (this.shown !== result) return;
    labels.setColormapLabel(colours(classes, new Set()));
    this.niivue.addVolume(image);
    this.niivue.addVolume(labels);
    this.niivue.setOpacity(1, this.opacity);
    this.niivue.onLocationChange = (location): void => this.tell(this.line(location, classes));
    this.goTo(result, classes);
  }

  setView(view: View): void {
    this.view = view;
    this.niivue.setSliceType(VIEWS[view]);
  }

  /** Number of slices of the plane that is shown, and the one that is seen, from 0. */
  get slices(): { count: number; at: number } {
    const count = this.niivue.volumes[0]?.dimsRAS?.[this.axis + 1] ?? 1;
    return { count, at: Math.min(Math.floor(this.niivue.scene.crosshairPos[this.axis]! * count), count - 1) };
  }

  goToSlice(number: number): void {
    const { count } = this.slices;
    const at = Math.min(Math.max(number, 0), count - 1);
    this.niivue.scene.crosshairPos[this.axis] = (at + 0.5) / count;
    this.niivue.createOnLocationChange();
    this.niivue.drawScene();
  }

  /** The axis of patient space (right, anterior, superior) along which slices follow one another. */
  private get axis(): 0 | 1 | 2 {
    return ({ sagittal: 0, coronal: 1, axial: 2, all: 2 } as const)[this.view];
  }

  setOpacity(opacity: number): void {
    this.opacity = opacity;
    if (this.niivue.volumes.length > 1) this.niivue.setOpacity(1, opacity);
  }

  setOutline(on: boolean): void {
    this.niivue.setAtlasOutline(on ? 1 : 0);
  }

  hide(classes: readonly LabelClass[], hidden: ReadonlySet<number>): void {
    const labels = this.niivue.volumes[1];
    if (!labels) return;
    labels.setColormapLabel(colours(classes, hidden));
    this.niivue.updateGLVolume();
  }

  private goTo({ overlay, shape }: Result, classes: readonly LabelClass[]): void {
    const labels = new Uint8Array(overlay, 352);
    const centre = centreOf(labels, shape, (index) => index > 0 && index < classes.length);
    this.niivue.scene.crosshairPos = this.niivue.vox2frac(centre) as [number, number, number];
    this.niivue.createOnLocationChange();
    this.niivue.drawScene();
  }

  private line(location: unknown, classes: readonly LabelClass[]): string {
    const { vox, values } = location as { vox: ArrayLike<number>; values: { value: number }[] };
    const place = Array.from(vox, (v) => Math.round(v)).join(", ");
    const name = classes[values[1]?.value ?? 0]?.name ?? "";
    return `voxel ${place} · value ${Number((values[0]?.value ?? 0).toPrecision(5))} · ${name}`;
  }
}

/** The middle of all labelled voxels; the volume's centre where there are none. */
export function centreOf(labels: Uint8Array, [nx, ny, nz]: [number, number, number], counts: (index: number) => boolean): number[] {
  let [count, sx, sy, sz] = [0, 0, 0, 0];
  for (let i = 0; i < labels.length; i++) {
    if (!counts(labels[i]!)) continue;
    count++;
    sx += i % nx;
    sy += Math.floor(i / nx) % ny;
    sz += Math.floor(i / (nx * ny));
  }
  return count === 0 ? [nx >> 1, ny >> 1, nz >> 1] : [sx, sy, sz].map((sum) => Math.round(sum / count));
}

function colours(classes: readonly LabelClass[], hidden: ReadonlySet<number>): Parameters<NVImage["setColormapLabel"]>[0] {
  const channel = (from: number): number[] => classes.map(({ color }) => Number.parseInt(color.slice(from, from + 2), 16));
  return {
    R: channel(1),
    G: channel(3),
    B: channel(5),
    A: classes.map(({ index }) => (index === 0 || hidden.has(index) ? 0 : 255)),
    I: classes.map(({ index }) => index),
    labels: classes.map(({ name }) => name),
  };
}
