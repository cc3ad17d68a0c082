"use strict";
// Shows the values under the pointer, or where the arrow keys lead. The page says all of it without this.
const SPACE = "http://www.w3.org/2000/svg";
function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle; else high = middle;
  }
  return step - points[low][0] <= points[high][0] - step ? points[low] : points[high];
}
function written(value) {
  const size = Math.abs(value);
  if (size && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}
for (const chart of document.querySelectorAll(".chart[data-values]")) {
  const values = JSON.parse(chart.dataset.values), plot = chart.querySelector(".plot");
  const [first, last] = values.x;
  const steps = [...new Set(values.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  let at = 0, tip = null, cursor = null;
  function hide() {
    tip?.remove(); cursor?.remove();
    tip = cursor = null;
  }
  function show(step) {
    hide();
    at = steps.indexOf(nearest(steps.map((one) => [one]), step)[0]);
    const place = (steps[at] - first) / (last - first);
    cursor = document.createElementNS(SPACE, "line");
    cursor.setAttribute("class", "cursor");
    for (const [name, value] of Object.entries({ x1: place * 100 + "%", x2: place * 100 + "%", y1: "0%", y2: "100%" })) cursor.setAttribute(name, value);
    plot.append(cursor);
    tip = document.createElement("div");
    tip.className = "tip";
    const head = document.createElement("b");
    head.textContent = "step " + steps[at].toLocaleString("en");
    tip.append(head);
    for (const line of values.lines) {
      if (steps[at] < line.points[0][0] || steps[at] > line.points.at(-1)[0]) continue;
      const [where, value] = nearest(line.points, steps[at]), said = document.createElement("span"), dot = document.createElement("i");
      dot.textContent = "●";
      dot.className = "c" + (line.color % 8);
      const away = where === steps[at] ? "" : " (step " + where.toLocaleString("en") + ")";
      said.append(dot, line.name + " " + written(value) + away);
      tip.append(said);
    }
    chart.append(tip);
    const outer = chart.getBoundingClientRect(), line = cursor.getBoundingClientRect(), drawn = plot.getBoundingClientRect();
    const x = line.left - outer.left;
    tip.style.left = Math.max(0, x + 12 + tip.offsetWidth <= outer.width ? x + 12 : x - 12 - tip.offsetWidth) + "px";
    tip.style.top = drawn.top - outer.top + 8 + "px";
  }
  function under(event) {
    const style = getComputedStyle(plot), box = plot.getBoundingClientRect(), left = parseFloat(style.paddingLeft);
    const width = box.width - left - parseFloat(style.paddingRight);
    show(first + Math.min(1, Math.max(0, (event.clientX - box.left - left) / width)) * (last - first));
  }
  plot.addEventListener("pointermove", under);
  plot.addEventListener("pointerdown", under);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!by) return;
    event.preventDefault();
    show(steps[Math.min(steps.length - 1, Math.max(0, tip ? at + by : at))]);
  });
}
