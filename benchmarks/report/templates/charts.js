"use strict";
// Charts: plotly draws them in the page's own colours, once they come into view.

// Okabe and Ito's colours, told apart with every kind of colour vision; in an order of contrast for each background.
const seriesColors = {
  light: ["#0072B2", "#D55E00", "#009E73", "#AA4499", "#B07A00", "#3A8FC4", "#6b6b6b", "#000000"],
  dark: ["#56B4E9", "#E69F00", "#2EC4A0", "#DD8FBC", "#F0E442", "#8FB8FF", "#B8B8B8", "#FFFFFF"],
};

function colorOf(token) {
  const style = getComputedStyle(document.documentElement);
  if (token === "@text") return style.getPropertyValue("--text").trim();
  if (token === "@grid") return style.getPropertyValue("--line").trim();
  const colors = seriesColors[scheme.dark ? "dark" : "light"];
  return colors[Number(token.slice(1)) % colors.length];
}

// Under the key "color" alone: a name may look like a colour's.
function withColors(value, key = "") {
  if (key === "color" && typeof value === "string" && value.startsWith("@")) return colorOf(value);
  if (Array.isArray(value)) return value.map((one) => withColors(one));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, withColors(one, name)]));
  return value;
}

function layoutOf(layout, box) {
  const [text, line] = [colorOf("@text"), colorOf("@grid")];
  const axis = (own) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, fixedrange: true, ...own });
  return {
    ...layout,
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
    height: box.clientHeight,
    margin: { l: 56, r: 12, t: 12, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 },
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    hoverlabel: { font: { size: 12 } },
    hovermode: "closest",
    dragmode: false,
  };
}

async function drawChart(box) {
  await loadPlotly();
  const chart = report.charts[box.dataset.chart];
  const config = { displayModeBar: false, responsive: true, doubleClick: false };
  await Plotly.react(box, withColors(chart.data), withColors(layoutOf(chart.layout, box)), config);
  if (!box.drawn) box.on("plotly_click", ({ points }) => showCaseOfPoint(points[0]));
  box.drawn = true;
}

function showCaseOfPoint(point) {
  const name = point.customdata;
  if (typeof name === "string" && report.cases.some((one) => one.name === name)) location.hash = `case=${encodeURIComponent(name)}`;
}

let plotly = null;
function loadPlotly() {
  plotly ??= unpackText("bundle-0").then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
  });
  return plotly;
}

const charts = [...document.querySelectorAll("[data-chart]")];
const inView = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  inView.unobserve(entry.target);
  drawChart(entry.target);
}), { rootMargin: "600px" });
charts.forEach((box) => inView.observe(box));
scheme.listeners.push(() => charts.filter((box) => box.drawn).forEach(drawChart));
addEventListener("beforeprint", () => charts.forEach(drawChart));
