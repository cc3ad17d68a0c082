// Elements and words. Whatever a server or a model says becomes text, and never HTML.

export const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (where a value is a function) and children (texts or elements). */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** Let an element say something, and touch nothing where it says so already. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function seconds(value) {
  if (value < 0.01) return `${rate(value * 1000)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return `${rate(value)} s`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (value >= 999.5 && power < units.length - 1) [value, power] = [value / 1000, power + 1];
  return `${power && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

export function rate(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

/** Where an adapter is: the nearest tier, in words. */
export function placed(tiers, pinned) {
  const tier = tiers.includes("device") ? "device" : tiers.includes("host") ? "host" : "";
  return { tier, text: (tier || "not loaded") + (pinned ? ", pinned" : "") };
}

const PLACES = {
  device: "where the base computes, ready to answer",
  host: "in the host's memory",
  "": "read when it is asked for",
};

/** A mark and a word for where an adapter is; told again with `place`. */
export function placeMark(tiers = [], pinned = false) {
  const made = element("span", { class: "place" });
  place(made, tiers, pinned);
  return made;
}

export function place(mark, tiers, pinned) {
  const { tier, text } = placed(tiers, pinned);
  mark.dataset.tier = tier;
  mark.title = PLACES[tier];
  say(mark, text);
}
