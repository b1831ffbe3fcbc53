// The page: a scan to the server, its label map over it.

import { COLOURS, Viewer } from "/viewer.js";

const element = (id) => document.getElementById(id);
const viewer = new Viewer(element("canvas"), update);
let models = [], address = null, turn = 0;

function headers() {
  const token = element("token").value;
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function say(text, failed = false) {
  element("status").textContent = text;
  element("status").className = failed ? "failed" : "";
}

async function loadModels() {
  const response = await fetch("/v1/models", { headers: headers() });
  element("token-row").hidden = response.status !== 401 && !element("token").value;
  if (!response.ok) return say((await response.json()).error, element("token").value !== "");
  models = (await response.json()).models;
  element("model").replaceChildren(...models.map((model) => new Option(model.name)));
  describeModel();
  say("");
}

function describeModel() {
  const model = models.find((one) => one.name === element("model").value);
  element("about").textContent = model ? `${model.network}, ${model.precision} on ${model.provider}, SHA-256 ${model.sha256.slice(0, 12)}` : "";
}

function send(file) {
  const mine = ++turn, isLatest = () => mine === turn;
  const failed = (error) => isLatest() && say(`${file.name}: the server gave no answer (${error.message}): does it run, and take files so large?`, true);
  segment(file, isLatest).catch(failed);
}

async function segment(file, isLatest) {
  const model = models.find((one) => one.name === element("model").value);
  element("answer").hidden = true;
  if (!model) return say("no model: is the token right?", true);
  say(`${file.name}: sent, waiting for the label map`);
  const url = `/v1/models/${encodeURIComponent(model.name)}/segment`;
  const response = await fetch(url, { method: "POST", headers: { ...headers(), Accept: "application/gzip" }, body: file });
  const content = response.ok ? await response.arrayBuffer() : await response.json();
  if (!isLatest()) return;
  if (!response.ok) return say(content.error, true);
  showTable(model.classes.slice(1), JSON.parse(response.headers.get("X-Attunet-Volumes")), JSON.parse(response.headers.get("X-Attunet-Findings")));
  offer(content, response.headers.get("Content-Type"), file.name);
  element("picture").classList.add("waiting");
  element("answer").hidden = false;
  say(file.name);
  await show(file, content, model, isLatest);
}

function showTable(classes, { unit, volumes }, findings) {
  const rows = classes.map(({ name }, index) => {
    const row = document.createElement("tr"), colour = document.createElement("td"), title = document.createElement("td"), value = document.createElement("td");
    const square = document.createElement("canvas");
    square.width = square.height = 12;
    const context = square.getContext("2d");
    context.fillStyle = `rgb(${COLOURS[1 + (index % (COLOURS.length - 1))].join()})`;
    context.fillRect(0, 0, 12, 12);
    colour.append(square);
    title.textContent = name;
    value.textContent = `${volumes[name] >= 10 ? volumes[name].toFixed() : Number(volumes[name].toPrecision(3))} ${unit}`;
    value.className = "number";
    row.append(colour, title, value);
    return row;
  });
  element("volumes").replaceChildren(...rows);
  element("findings").replaceChildren(
    ...findings.map((finding) => Object.assign(document.createElement("li"), { textContent: `${finding.level}: ${finding.text}` })),
  );
}

function offer(content, type, name) {
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([content], { type }));
  element("download").href = address;
  element("download").download = `${name.replace(/(\.nii)?\.[^.]+$/, "")}-labels.nii.gz`;
}

/** Shows a scan, unless another file was chosen while it was read. */
async function show(file, content, model, isLatest) {
  try {
    const volumes = await viewer.read(file, content);
    if (!isLatest()) return;
    viewer.show(volumes, model.classes);
    element("canvas").dataset.file = file.name;
    element("picture").classList.remove("waiting");
  } catch (error) {
    const why = await reason(error);
    if (isLatest()) say(`${file.name}: the label map is not shown (${why}); it can be saved`);
  }
}

async function reason(error) {
  const answer = await fetch("/niivue.js");
  return answer.ok ? error.message : answer.text();
}

function update() {
  Object.assign(element("slice"), { max: viewer.count - 1, value: viewer.slice });
  element("number").value = `${viewer.slice + 1} of ${viewer.count}`;
}

element("slice").addEventListener("input", (event) => viewer.goTo(Number(event.target.value)));
element("view").addEventListener("change", (event) => viewer.setView(event.target.value));
element("opacity").addEventListener("input", (event) => viewer.setOpacity(event.target.value / 100));
element("choice").addEventListener("submit", (event) => event.preventDefault());
element("model").addEventListener("change", describeModel);
element("token").addEventListener("change", loadModels);
element("file").addEventListener("change", (event) => event.target.files[0] && send(event.target.files[0]));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", over);
    const files = name === "drop" ? event.dataTransfer.files : [];
    if (files.length > 1) say(`${files.length} files: drop one, the slices of a series as a zip`, true);
    else if (files[0]) send(files[0]);
  });
}
loadModels().catch((error) => say(`the server does not answer: ${error.message}`, true));
