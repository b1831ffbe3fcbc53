/** The words around the viewer: what the model is, and how large the organs are. */

import type { Metadata } from "../network/artefact";
import { general } from "../scan/words";
import type { Result } from "../worker/messages";

let address = "";

export function describeModel(about: Metadata): void {
  const organs = about.classes.slice(1).map(({ name }) => name);
  const { artefact, cases } = about.dice_at_export;
  const facts = [organs.length > 6 ? `${organs.length} classes` : organs.join(", "), about.precision];
  if (typeof artefact === "number") facts.push(`Dice ${artefact.toFixed(3)} on ${cases === "held out" ? "cases left out of" : "cases of"} the training`);
  if (about.channel_names && about.channel_names.length > 1) facts.push(`channels in this order: ${about.channel_names.join(", ")}`);
  set("name", about.name);
  set("facts", facts.join(" · "));
  document.title = `${about.name} · attunet`;
}

/** toggle: called with a class's index and whether it is to be seen. */
export function showResult(result: Result, about: Metadata, toggle: (index: number, shown: boolean) => void): void {
  set("scan-name", result.stem);
  const size = result.shape.join(" × ");
  const spacing = result.spacing.map((mm) => Number(mm.toPrecision(3))).join(" × ");
  set("scan-facts", `${size} voxels of ${spacing} mm, segmented in ${result.seconds.toFixed(1)} s`);
  document.getElementById("scan-facts")!.dataset["seconds"] = String(result.seconds);
  const rows = about.classes.slice(1).map(({ index, name, color }) => {
    const row = document.createElement("tr");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => toggle(index, box.checked));
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = color;
    const label = document.createElement("label");
    label.append(box, swatch, name);
    row.insertCell().append(label);
    row.insertCell().textContent = millilitres(result.voxels[index]! * result.mlPerVoxel);
    return row;
  });
  document.getElementById("volumes")!.replaceChildren(...rows);
  const save = document.getElementById("save") as HTMLAnchorElement;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(result.saved);
  save.href = address;
  save.download = `${result.stem}-labels.nii.gz`;
}

/** As the command line rounds: three digits below ten. */
function millilitres(ml: number): string {
  return `${ml >= 10 ? ml.toFixed(0) : general(ml, 3)} ml`;
}

function set(id: string, text: string): void {
  document.getElementById(id)!.textContent = text;
}
