import { expect, test, vi } from "vitest";
import { Viewer } from "../src/page/viewer";
import type { Result } from "../src/worker/messages";

const shown: string[] = [];
const reads = new Map<string, () => void>();

vi.mock("@niivue/niivue", () => ({
  SLICE_TYPE: {},
  Niivue: class {
    volumes: string[] = shown;
    scene = { crosshairPos: [0, 0, 0] };
    attachToCanvas = async (): Promise<void> => undefined;
    removeVolume = (volume: string): unknown => shown.splice(shown.indexOf(volume), 1);
    addVolume = ({ buffer }: { buffer: string }): unknown => shown.push(buffer);
    setOpacity = (): void => undefined;
    vox2frac = (): number[] => [0, 0, 0];
    createOnLocationChange = (): void => undefined;
    drawScene = (): void => undefined;
  },
  NVImage: {
    loadFromUrl: async ({ buffer }: { buffer: unknown }) => {
      if (typeof buffer === "string") await new Promise<void>((done) => reads.set(buffer, done));
      return { buffer: typeof buffer === "string" ? buffer : "labels", setColormapLabel: (): void => undefined };
    },
  },
}));

const result = (image: string): Result => ({ image, overlay: new ArrayBuffer(352), shape: [1, 1, 1] }) as unknown as Result;

/** Shows two scans, of which both are being read. */
async function showTwo(canvas: HTMLCanvasElement): Promise<{ first: Promise<void>; second: Promise<void> }> {
  reads.clear();
  const viewer = new Viewer(canvas, () => undefined);
  const first = viewer.show(result("first"), []);
  await vi.waitUntil(() => reads.has("first"));
  const second = viewer.show(result("second"), []);
  await vi.waitUntil(() => reads.has("second"));
  return { first, second };
}

test("a scan that is read slowly is not added to the one that was segmented after it", async () => {
  const { first, second } = await showTwo({} as HTMLCanvasElement);
  reads.get("second")!();
  await second;
  reads.get("first")!();
  await first;
  expect(shown).toEqual(["second", "labels"]);
});

test("the canvas is busy until the last scan is drawn, though an earlier one is read meanwhile", async () => {
  const canvas = {} as HTMLCanvasElement;
  const { first, second } = await showTwo(canvas);
  reads.get("first")!();
  await first;
  expect(canvas.ariaBusy).toBe("true");
  reads.get("second")!();
  await second;
  expect(canvas.ariaBusy).toBe("false");
});
