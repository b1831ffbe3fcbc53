"use strict";
// The start of the case browser, once it comes into view or an address names a case; and the bars over its slider.

// A bar for every slice: how many voxels are wrong, summed over the models.
function drawProfile(about, go) {
  const counts = about.layers.reduce((sums, layer) => layer.wrong.map((count, n) => count + (sums[n] ?? 0)), []);
  const most = Math.max(1, ...counts);
  const namespace = "http://www.w3.org/2000/svg";
  const svg = byId("profile");
  svg.setAttribute("viewBox", `0 0 ${counts.length} 20`);
  svg.replaceChildren(...counts.map((count, n) => {
    const bar = document.createElementNS(namespace, "rect");
    const height = (20 * count) / most;
    Object.entries({ x: n + 0.1, y: 20 - height, width: 0.8, height }).forEach(([name, value]) => bar.setAttribute(name, value));
    return bar;
  }));
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * counts.length));
  };
}

let caseBrowser = null;
function startBrowser() {
  if (caseBrowser || !report.cases.length) return;
  caseBrowser = new CaseBrowser();
  caseBrowser.follow().catch((error) => {
    byId("status").textContent = `The scans need WebGL 2, which this browser does not give: ${error.message}`;
  });
}
if (location.hash.includes("case=")) startBrowser();
else if (report.cases.length) new IntersectionObserver((entries) => entries[0].isIntersecting && startBrowser(), { rootMargin: "400px" }).observe(byId("browser"));
addEventListener("hashchange", () => location.hash.includes("case=") && startBrowser());
