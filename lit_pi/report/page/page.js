"use strict";
// Draws the figures, follows the reader's colours, and fits them on paper.
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [];

function template(night) {
  const [ink, faint, rule, card] = night
    ? ["#e8eaed", "#a3abb5", "#353a42", "#1d2025"]
    : ["#1a1c1f", "#5a6068", "#d9dce0", "#ffffff"];
  const axis = { color: ink, gridcolor: rule, zerolinecolor: faint, linecolor: faint, zeroline: false, exponentformat: "none",
    title: { font: { size: 13 }, standoff: 8 }, tickfont: { size: 12 } };
  return { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, 'Segoe UI', Roboto, Arial, sans-serif", size: 12 },
    xaxis: axis, yaxis: axis, annotationdefaults: { font: { color: ink } }, shapedefaults: { line: { color: faint } },
    hoverlabel: { bgcolor: card, bordercolor: faint, font: { color: ink, size: 13 }, align: "left" },
  } };
}

for (const place of document.querySelectorAll(".plot")) {
  const spec = JSON.parse(place.querySelector("script").textContent);
  const target = place.appendChild(document.createElement("div"));
  spec.layout.template = template(dark.matches);
  Plotly.newPlot(target, spec.data, spec.layout, { responsive: true, displayModeBar: false });
  plots.push(target);
}

dark.addEventListener("change", () => plots.forEach((plot) => Plotly.relayout(plot, { template: template(dark.matches) })));

// A page of A4 or Letter with its margins is 680 pixels wide.
addEventListener("beforeprint", () => plots.forEach((plot) => Plotly.relayout(plot, {
  template: template(false), width: plot.closest(".small") ? 320 : 660,
})));
addEventListener("afterprint", () => plots.forEach((plot) => Plotly.relayout(plot, {
  template: template(dark.matches), width: plot.parentElement.clientWidth,
}).then(() => Plotly.relayout(plot, { width: null, autosize: true }))));

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", String(shown));
    for (const plot of button.closest("figure").querySelectorAll(".js-plotly-plot")) {
      const lines = plot.data.flatMap((trace, at) => (trace.legendgroup === button.dataset.entry ? [at] : []));
      if (lines.length) Plotly.restyle(plot, { visible: shown }, lines);
    }
  });
}
