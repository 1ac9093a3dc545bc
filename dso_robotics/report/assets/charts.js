// Draws the charts of a report with uPlot once they come into view. Drag to zoom, double-click for all; charts of a group move together.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const kept = new Map(), drawn = new Map(), ranges = new Map();
  const root = document.documentElement;
  root.classList.add("scripted");

  function numbers(index) {
    if (!kept.has(index)) {
      const text = data.arrays[index];
      const bytes = Uint8Array.from(atob(text.slice(2)), (c) => c.charCodeAt(0)).buffer;
      const values = text.startsWith("f8") ? new Float64Array(bytes) : new Float32Array(bytes);
      kept.set(index, Array.from(values, (v) => (Number.isNaN(v) ? null : v)));
    }
    return kept.get(index);
  }

  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim() || "#888";
  const shown = (v) => (v == null ? "–" : String(Number(v.toPrecision(5))));

  function series(line) {
    const ink = () => colour(line.colour === "ink" ? "ink2" : line.colour);
    const one = { label: line.label, stroke: ink, width: line.style === "thick" ? 2.2 : 1.2, points: { show: false } };
    one.value = (_, v) => shown(v);
    if (line.style === "dash" || line.style === "band") one.dash = [5, 4];
    if (line.style === "dots") Object.assign(one, { paths: () => null, points: { show: true, size: 3.5, fill: ink, width: 0 } });
    if (line.style === "bars") Object.assign(one, { paths: uPlot.paths.bars({ size: [1, 100] }), fill: () => ink() + "88", width: 0 });
    return one;
  }

  function marks(entry) {
    const places = entry.marks === undefined ? [] : numbers(entry.marks);
    return (plot) => {
      const inside = places.filter((x) => x >= plot.scales.x.min && x <= plot.scales.x.max);
      if (!inside.length || inside.length > plot.width / 8) return;
      const { top, height } = plot.bbox, pen = plot.ctx;
      pen.save(); pen.strokeStyle = colour("mark"); pen.lineWidth = devicePixelRatio; pen.beginPath();
      for (const x of inside) {
        const at = Math.round(plot.valToPos(x, "x", true));
        pen.moveTo(at, top); pen.lineTo(at, top + height);
      }
      pen.stroke(); pen.restore();
    };
  }

  function draw(figure) {
    const number = Number(figure.dataset.chart), box = figure.querySelector(".drawn");
    if (drawn.has(figure) || !box.clientWidth) return;
    const entry = data.charts[number], axis = { stroke: () => colour("soft"), grid: { stroke: () => colour("grid"), width: 1 } };
    axis.ticks = { show: false }; axis.font = "12px system-ui, sans-serif";
    const y = entry.scale === "log" ? { distr: 3 } : entry.scale === "asinh" ? { distr: 4, asinh: 1 } : {};
    const few = entry.lines.length > 1 || entry.group;
    const options = {
      width: box.clientWidth, height: entry.height, scales: { x: { time: false }, y },
      axes: [{ ...axis, size: 26, label: entry.label || undefined, labelSize: 18, labelFont: axis.font, space: 70 },
        { ...axis, size: 62, values: (_, found) => found.map((v) => (v == null ? "" : shown(v))) }],
      series: [{ label: entry.label || "x", value: (_, v) => shown(v) }, ...entry.lines.map(series)],
      legend: { show: Boolean(few), live: true },
      cursor: { drag: { x: true, y: false }, points: { size: 6 }, sync: entry.group ? { key: entry.group, setSeries: false } : undefined },
      hooks: { drawClear: [marks(entry)], setScale: [(plot, key) => key === "x" && follow(entry.group, plot)] },
    };
    const band = entry.lines.flatMap((line, i) => (line.style === "band" ? [i + 1] : []));
    if (band.length === 2) options.bands = [{ series: band, fill: () => colour("band") }];
    const plot = new uPlot(options, [numbers(entry.x), ...entry.lines.map((line) => numbers(line.y))], box);
    drawn.set(figure, plot); plot.group = entry.group;
    figure.classList.add("done"); box.style.minHeight = "";
    const range = ranges.get(entry.group);
    if (entry.group && range) plot.setScale("x", range);
    new ResizeObserver(() => {
      if (box.clientWidth && box.clientWidth !== plot.width) plot.setSize({ width: box.clientWidth, height: entry.height });
    }).observe(box);
  }

  let following = false;
  function follow(group, from) {
    if (!group || following || from.status !== 1) return;
    following = true;
    const { min, max } = from.scales.x;
    ranges.set(group, { min, max });
    for (const plot of drawn.values()) if (plot !== from && plot.group === group) plot.setScale("x", { min, max });
    following = false;
  }

  // Buttons that show and hide the charts of a run by channel.
  function chips(bar) {
    const charts = [...bar.parentElement.querySelectorAll(":scope > .channels > .chart, :scope > .channels > .columns")];
    const first = Number(bar.dataset.first), buttons = [];
    const set = (i, on) => { charts[i].hidden = !on; charts[i].style.display = on ? "" : "none"; buttons[i].setAttribute("aria-pressed", String(on)); };
    const add = (text, action) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = text; button.title = text; button.addEventListener("click", action);
      bar.append(button);
      return button;
    };
    if (charts.length > 3) {
      add("all", () => charts.forEach((_, i) => set(i, true))); add("none", () => charts.forEach((_, i) => set(i, false)));
    }
    if (charts.length > 12) {
      const input = document.createElement("input");
      input.placeholder = "name"; input.setAttribute("aria-label", "show channels whose name has");
      input.addEventListener("input", () => charts.forEach((chart, i) => set(i, input.value !== "" && chart.dataset.title.includes(input.value))));
      bar.append(input);
    }
    charts.forEach((chart, i) => {
      buttons.push(add(chart.dataset.title, () => set(i, buttons[i].getAttribute("aria-pressed") !== "true")));
      set(i, i < first);
    });
  }

  document.querySelectorAll(".chips").forEach(chips);
  const watch = new IntersectionObserver((seen) => seen.forEach((one) => one.isIntersecting && draw(one.target)), { rootMargin: "300px" });
  document.querySelectorAll(".chart").forEach((figure) => watch.observe(figure));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((plot) => plot.redraw()));
})();
