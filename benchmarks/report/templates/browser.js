"use strict";
// The case browser: which case, which slice, what is drawn over it. `#case=03&slice=12` is an address; slices count from 1.

const outlineColors = ["#FFFFFF", "#56B4E9", "#E69F00", "#2EC4A0", "#CC79A7", "#F0E442", "#8FB8FF"]; // truth, then the models
const outlineDashes = [[], [], [5, 3], [2, 3], [8, 3, 2, 3]];

class CaseBrowser {
  constructor() {
    this.viewer = new Viewer(byId("scan"), byId("overlay"));
    this.viewer.changed = () => this.moved();
    this.viewer.windowed = () => this.showWindow();
    this.ready = this.viewer.start();
    this.listen();
  }

  listen() {
    const on = (id, event, handler) => byId(id).addEventListener(event, handler);
    on("case", "change", () => this.go(byId("case").value));
    on("slice", "input", () => this.goToSlice(Number(byId("slice").value) - 1));
    on("previous", "click", () => this.goToSlice(this.slice - 1));
    on("next", "click", () => this.goToSlice(this.slice + 1));
    on("worst", "click", () => this.viewer.moveTo([...this.about.worst]));
    on("fill", "change", () => this.showFill());
    on("opacity", "input", () => this.viewer.fill && this.viewer.niivue.setOpacity(1, Number(byId("opacity").value) / 100));
    on("level", "input", () => this.setWindow());
    on("width", "input", () => this.setWindow());
    on("reset", "click", () => this.resetWindow());
    on("scan", "keydown", (event) => this.key(event));
    document.getElementsByName("view").forEach((one) => one.addEventListener("change", () => this.showView()));
    ["outlines", "classes"].forEach((id) => on(id, "change", () => this.showLayers()));
    addEventListener("hashchange", () => this.follow());
  }

  // --- where ---

  // Shows what the address names, or the worst case where it names none.
  async follow() {
    const address = new URLSearchParams(location.hash.slice(1));
    const name = address.get("case");
    const known = report.cases.some((one) => one.name === name);
    if (name !== null && !known) byId("status").textContent = `The case ${name} is not in this file.`;
    if (name !== null && known) byId("browser").scrollIntoView();
    await this.open(known ? name : report.cases[0].name);
    const slice = parseInt(address.get("slice"), 10);
    const index = [...this.about.worst];
    if (known && Number.isInteger(slice)) index[this.axis] = Math.max(0, Math.min(this.lastSlice, slice - 1));
    this.viewer.moveTo(index);
  }

  go(name) {
    location.hash = `case=${encodeURIComponent(name)}`;
  }

  async open(name) {
    await this.ready;
    if (this.about?.name === name) return;
    byId("status").textContent = `Opening case ${name}`;
    this.about = report.cases.find((one) => one.name === name);
    this.axis = this.about.sliceAxis;
    byId("case").value = name;
    await this.viewer.open(this.about);
    this.fillControls();
    this.showView();
    this.showLayers();
    this.showWindow();
    byId("status").textContent = "";
    byId("scan").setAttribute("aria-label", `Scan of case ${name} with outlines; the text below says what is under the crosshair`);
    byId("stage").dataset.case = name;
  }

  get slice() {
    return this.viewer.index[this.axis];
  }

  get lastSlice() {
    return this.about.shape[this.axis] - 1;
  }

  goToSlice(slice) {
    const index = this.viewer.index;
    index[this.axis] = Math.max(0, Math.min(this.lastSlice, slice));
    this.viewer.moveTo(index);
  }

  moved() {
    if (!this.about) return;
    const number = this.slice + 1;
    byId("slice").value = number;
    byId("slice").setAttribute("aria-valuetext", `slice ${number} of ${this.lastSlice + 1}`);
    byId("place").textContent = `${number} / ${this.lastSlice + 1}`;
    document.querySelectorAll("#profile rect").forEach((bar, n) => bar.classList.toggle("here", n === this.slice));
    this.readOut();
    history.replaceState(null, "", `#case=${encodeURIComponent(this.about.name)}&slice=${number}`);
  }

  readOut() {
    const { viewer, about } = this;
    const offset = viewer.offset(viewer.index);
    const className = (label) => (label === 255 ? "ignored" : label ? report.classes[label - 1].name : "background");
    const image = viewer.volumes[`${about.prefix}-image`];
    const values = Array.from({ length: about.channels }, (_, c) => viewer.valueOf(image[offset * about.channels + c]));
    const parts = [["Voxel", viewer.index.map((place) => place + 1).join(", ")], ["Value", values.map((v) => v.toPrecision(3) * 1).join(", ")]];
    const truth = viewer.volumes[`${about.prefix}-truth`][offset];
    parts.push(["Truth", truth === 0 && about.undrawn.length ? "background or a class that was not drawn" : className(truth)]);
    about.layers.forEach((layer) => parts.push([layer.name, className(viewer.volumes[`${about.prefix}-labels-${layer.index}`][offset])]));
    if (viewer.fill?.kind === "attention") parts.push(["Attention", viewer.attentionAt(viewer.fill).toFixed(2)]);
    byId("readout").replaceChildren(...parts.map(([title, value]) => {
      const [row, term, detail] = ["div", "dt", "dd"].map((name) => document.createElement(name));
      [term.textContent, detail.textContent] = [title, value];
      row.append(term, detail);
      return row;
    }));
  }

  key(event) {
    event.stopImmediatePropagation(); // NiiVue has keys of its own
    const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 };
    const sideways = { ArrowLeft: 1, ArrowRight: -1 };
    if (event.key in steps && !event.shiftKey) this.goToSlice(this.slice + steps[event.key]);
    else if (event.key in sideways || (event.shiftKey && event.key in steps)) {
      const [first, second] = [0, 1, 2].filter((axis) => axis !== this.axis);
      const index = this.viewer.index;
      index[event.key in sideways ? first : second] += sideways[event.key] ?? steps[event.key];
      this.viewer.moveTo(index.map((place, axis) => Math.max(0, Math.min(this.about.shape[axis] - 1, place))));
    } else return;
    event.preventDefault();
  }

  // --- what ---

  fillControls() {
    const { about } = this;
    byId("slice").max = this.lastSlice + 1;
    byId("planes").hidden = about.shape.some((length) => length === 1);
    byId("grey").hidden = about.channels === 3;
    byId("outlines").replaceChildren(...[{ name: "truth" }, ...about.layers].map((layer, n) => this.outlineBox(layer, n)));
    const options = [["", "nothing"], ["labels:truth", "truth"]];
    about.layers.forEach((layer, n) => options.push([`labels:${n}`, layer.name]));
    about.layers.forEach((layer, n) => options.push([`difference:${n}`, `difference: ${layer.name} and truth`]));
    about.attention.forEach((map, n) => options.push([`attention:${n}`, `attention of ${map.name}`]));
    const before = byId("fill").value;
    byId("fill").replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    if (options.some(([value]) => value === before)) byId("fill").value = before;
    drawProfile(about, (slice) => this.goToSlice(slice));
  }

  outlineBox(layer, n) {
    const label = document.createElement("label");
    const [box, line] = [document.createElement("input"), document.createElement("i")];
    const kept = this.shownOutlines?.has(layer.name) ?? n < 3;
    Object.assign(box, { type: "checkbox", checked: kept, value: n });
    line.className = "outline-sample";
    line.style.borderTopColor = outlineColors[n % outlineColors.length];
    line.style.borderTopStyle = outlineDashes[n % outlineDashes.length].length ? "dashed" : "solid";
    const score = Object.values(layer.dice ?? {}).filter((value) => value !== null);
    const mean = score.length ? `  ${(score.reduce((a, b) => a + b, 0) / score.length).toFixed(3)}` : "";
    label.append(box, line, layer.name, Object.assign(document.createElement("span"), { className: "score", textContent: mean }));
    return label;
  }

  labelsOf(layer) {
    return this.viewer.volumes[layer ? `${this.about.prefix}-labels-${layer.index}` : `${this.about.prefix}-truth`];
  }

  showLayers() {
    const boxes = [...byId("classes").querySelectorAll("input")];
    this.viewer.visible = [false, ...boxes.map((box) => box.checked)];
    const layers = [null, ...this.about.layers];
    const chosen = [...byId("outlines").querySelectorAll("input")].filter((box) => box.checked).map((box) => Number(box.value));
    this.shownOutlines = new Set(chosen.map((n) => layers[n]?.name ?? "truth"));
    const ratio = devicePixelRatio;
    this.viewer.outlines = chosen.map((n) => ({
      labels: this.labelsOf(layers[n]),
      color: outlineColors[n % outlineColors.length],
      dash: outlineDashes[n % outlineDashes.length].map((length) => length * ratio),
      width: (n === 0 ? 2.5 : 1.5) * ratio,
    }));
    this.showFill();
  }

  async showFill() {
    const [kind, which] = byId("fill").value.split(":");
    const layer = which === "truth" ? null : this.about.layers[Number(which)];
    const fill = !kind ? null : kind === "attention" ? { kind, map: this.about.attention[Number(which)] } : { kind, labels: this.labelsOf(layer) };
    await this.viewer.setFill(fill, Number(byId("opacity").value) / 100);
    byId("difference-key").hidden = kind !== "difference";
    byId("attention-key").hidden = kind !== "attention";
    this.viewer.niivue.drawScene();
    this.readOut();
    byId("stage").dataset.fill = byId("fill").value;
  }

  showView() {
    const chosen = [...document.getElementsByName("view")].find((one) => one.checked).value;
    this.viewer.setView(byId("planes").hidden ? "slice" : chosen);
  }

  // --- grey values ---

  showWindow() {
    if (!this.about || this.about.channels === 3) return;
    const [low, high] = this.viewer.window;
    const span = this.about.range[1] - this.about.range[0];
    Object.assign(byId("level"), { min: this.about.range[0], max: this.about.range[1], step: span / 255, value: (low + high) / 2 });
    Object.assign(byId("width"), { min: span / 255, max: span, step: span / 255, value: high - low });
    byId("window-text").textContent = `${low.toPrecision(3) * 1} to ${high.toPrecision(3) * 1}`;
  }

  setWindow() {
    const [level, width] = [Number(byId("level").value), Number(byId("width").value)];
    this.viewer.setWindow(level - width / 2, level + width / 2);
    this.showWindow();
  }

  resetWindow() {
    this.viewer.setWindow(...this.about.window.map((value) => this.viewer.valueOf(value)));
    this.showWindow();
  }
}
