// What the server did in the last three minutes, as small charts drawn by hand.

import { $, bytes, counted, drawn, element, rate, say, seconds } from "./dom.js";

const SPAN = 180; // seconds
const HEIGHT = 60;
const LEAST = 0.5; // seconds over which tokens are counted

// `least` is the smallest end of a scale; `lines` are read from a point, undefined or null where it is not known.
const CHARTS = [
  { title: "Throughput", unit: "tokens/s", least: 10, show: rate, lines: { "": (now) => now.rate } },
  { title: "Requests", least: 5, show: rate, lines: { running: (now) => now.running, waiting: (now) => now.waiting } },
  { title: "First token", least: 0.01, show: seconds, lines: quantiles("first") },
  { title: "Each further token", least: 0.001, show: seconds, lines: quantiles("each") },
];
const MEMORY = { device: "Adapters, device", host: "Adapters, host", kv: "Keys and values" };

export class Charts {
  constructor() {
    this.points = [];
    this.last = null;
    this.charts = CHARTS.map((chart) => new Chart(chart));
    this.memory = {};
    const list = element("dl");
    for (const [name, text] of Object.entries(MEMORY)) {
      this.memory[name] = element("dd");
      list.append(element("div", {}, element("dt", {}, text), this.memory[name]));
    }
    const memory = element("figure", { class: "chart memory" }, element("figcaption", {}, "Memory"), list);
    $("charts").append(...this.charts.map((chart) => chart.node), memory);
  }

  /** What `/v1/stats` says now. */
  add(stats) {
    const at = performance.now() / 1000, { last } = this;
    const passed = last ? stats.uptime - last.uptime : LEAST;
    this.tellMemory(stats);
    const isAnother = last && Math.abs(passed - (at - last.at)) > 2; // a server that was started anew, or a replica
    if (isAnother) return this.gap();
    if (passed < LEAST) return;
    const { running, waiting } = stats;
    const { time_to_first_token: first, time_per_token: each } = stats.recent ?? {};
    this.points.push({ at, rate: last && (stats.tokens - last.tokens) / passed, running, waiting, first, each });
    this.last = { ...stats, at };
    this.draw(at);
  }

  draw(at) {
    this.points = this.points.filter((point) => at - point.at <= SPAN + 5);
    for (const chart of this.charts) chart.draw(this.points, at);
  }

  tellMemory(stats) {
    for (const tier of ["device", "host"]) {
      const { adapters, bytes: size } = stats.tiers[tier];
      say(this.memory[tier], adapters ? `${adapters.toLocaleString("en")} · ${bytes(size)}` : "none");
    }
    const share = Math.round((100 * stats.kv_pages_used) / stats.kv_pages);
    say(this.memory.kv, `${stats.kv_pages_used.toLocaleString("en")} of ${counted(stats.kv_pages, "page")}`);
    this.memory.kv.title = `${share}% in use`;
  }

  /** Nothing is known from here to the next point. */
  gap() {
    if (!this.points.length) return;
    const at = performance.now() / 1000;
    this.last = null;
    this.points.push({ at });
    this.draw(at);
  }
}

class Chart {
  constructor({ title, unit = "", least, show, lines }) {
    Object.assign(this, { title, unit, least, show });
    this.top = element("span", { class: "top" });
    this.plot = drawn("svg", { viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, HEIGHT / 2, HEIGHT]) this.plot.append(drawn("path", { class: "rule", d: `M0 ${y}H${SPAN}` }));
    const keys = element("span", { class: "keys" });
    this.lines = Object.entries(lines).map(([name, read], index) => {
      const path = drawn("path", { class: `line c${index}` });
      const value = element("b");
      const key = element("span", { class: "key" }, name && `${name} `, value, unit && ` ${unit}`);
      if (name) key.prepend(element("i", { class: `c${index}` }));
      this.plot.append(path);
      keys.append(key);
      return { name, read, value, path };
    });
    const ends = ["3 min ago", "now"].map((text) => element("span", {}, text));
    this.node = element("figure", { class: "chart" }, element("figcaption", {}, title, keys));
    this.node.append(element("div", { class: "plot" }, this.plot, this.top));
    this.node.append(element("div", { class: "axis", "aria-hidden": "true" }, ...ends));
  }

  draw(points, now) {
    const shown = this.lines.map((line) => points.map((point) => [SPAN - (now - point.at), line.read(point) ?? null]));
    const most = rounded(Math.max(this.least, ...shown.flat().map(([, value]) => value ?? 0)));
    say(this.top, this.show(most));
    this.lines.forEach((line, index) => {
      line.path.setAttribute("d", pathOf(shown[index], most));
      const value = shown[index].at(-1)?.[1];
      say(line.value, value == null ? "–" : this.show(value));
    });
    const said = this.lines.map((line) => `${line.name} ${line.value.textContent} ${this.unit}`.trim()).join(", ");
    this.plot.setAttribute("aria-label", `${this.title} now: ${said}; the scale ends at ${this.show(most)}`);
  }
}

function quantiles(kind) {
  return { median: (now) => now[kind]?.p50, "95%": (now) => now[kind]?.p95 };
}

/** The line through points; where there is no value, it is broken. */
function pathOf(points, most) {
  let path = "", isBroken = true;
  for (const [x, value] of points) {
    const place = `${x.toFixed(2)} ${(HEIGHT * (1 - value / most)).toFixed(2)}`;
    if (value !== null) path += isBroken ? `M${place}h.01` : `L${place}`; // a point alone is a dot
    isBroken = value === null;
  }
  return path;
}

/** The next 1, 2 or 5 times a power of ten. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value) + 1e-9);
  return power * [1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9));
}
