"use strict";
// The page: colour scheme, tables that sort, and the hint that says how a figure was got.

const report = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);

// --- light and dark ---------------------------------------------------------------------------------------------------------------

const scheme = {
  system: matchMedia("(prefers-color-scheme: dark)"),
  listeners: [],
  get dark() {
    return (document.documentElement.dataset.theme || (this.system.matches ? "dark" : "light")) === "dark";
  },
  label() {
    byId("theme").textContent = this.dark ? "Light" : "Dark";
  },
  set(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    this.label();
    this.listeners.forEach((listener) => listener());
  },
};
byId("theme").addEventListener("click", () => scheme.set(scheme.dark ? "light" : "dark"));
scheme.system.addEventListener("change", () => scheme.set(document.documentElement.dataset.theme));
scheme.label();

// Paper is white, and shows what is folded away.
let beforePrint = null;
addEventListener("beforeprint", () => {
  beforePrint = { theme: document.documentElement.dataset.theme, closed: [...document.querySelectorAll("details:not([open])")] };
  beforePrint.closed.forEach((one) => (one.open = true));
  scheme.set("light");
});
addEventListener("afterprint", () => {
  beforePrint.closed.forEach((one) => (one.open = false));
  scheme.set(beforePrint.theme);
});

// --- tables -----------------------------------------------------------------------------------------------------------------------

function sortTable(header) {
  const table = header.closest("table");
  const column = [...header.parentElement.children].indexOf(header);
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = (row) => row.children[column].dataset.value;
  const compare = (a, b) => {
    const [first, second] = [value(a), value(b)];
    if (!first || !second) return (first ? 0 : 1) - (second ? 0 : 1); // what is not defined stays at the end
    const [x, y] = [Number(first), Number(second)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? first.localeCompare(second, "en", { numeric: true }) : x - y;
    return ascending ? order : -order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  const direction = ascending ? "ascending" : "descending";
  byId("announcement").textContent = `${table.caption.textContent} sorted by ${header.textContent.trim()}, ${direction}`;
}
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => sortTable(button.closest("th"))));

// --- how a figure was got ---------------------------------------------------------------------------------------------------------

const hint = byId("hint");
function showHint(target) {
  hint.textContent = target.dataset.how;
  hint.hidden = false;
  const box = target.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left + box.width / 2 - hint.offsetWidth / 2, innerWidth - hint.offsetWidth - 8));
  const above = box.top > hint.offsetHeight + 12;
  hint.style.left = `${left}px`;
  hint.style.top = `${above ? box.top - hint.offsetHeight - 8 : box.bottom + 8}px`;
}
const withHint = (event) => event.target.closest?.("[data-how]");
document.addEventListener("pointerover", (event) => (withHint(event) ? showHint(withHint(event)) : (hint.hidden = true)));
document.addEventListener("focusin", (event) => (withHint(event) ? showHint(withHint(event)) : (hint.hidden = true)));
document.addEventListener("keydown", (event) => event.key === "Escape" && (hint.hidden = true));
addEventListener("scroll", () => (hint.hidden = true), { passive: true });

// --- copying a command ------------------------------------------------------------------------------------------------------------

document.querySelectorAll("button.copy").forEach((button) =>
  button.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(button.previousElementSibling.textContent);
    byId("announcement").textContent = "copied";
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }),
);
