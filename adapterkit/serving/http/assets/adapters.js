// The list of what may be asked for, and where each lies.

import { $, bytes, counted, element, place, placeMark, say } from "./dom.js";

/** The list. Rows are made once and told anew, so that focus and scrolling stay where they are. */
export class Adapters {
  /** `choose(model, isChosen)` is called for a box that is ticked; `open(name)` for a look at the versions. */
  constructor({ choose, open }) {
    Object.assign(this, { choose, open, rows: new Map(), base: null, served: new Map() });
    $("filter").addEventListener("input", () => this.filter());
  }

  /** What is served now, as `/v1/adapters` lists it. */
  tell(base, data) {
    if (this.base?.name !== base) {
      this.base?.row.remove();
      this.base = this.row(base, { about: "the base alone" });
    }
    this.served = new Map(data.map((one) => [one.name, one]));
    for (const [name, { row }] of this.rows) {
      if (this.served.has(name)) continue;
      row.remove();
      this.rows.delete(name);
    }
    const list = $("list");
    if (list.firstChild !== this.base.row) list.prepend(this.base.row);
    let before = this.base.row;
    for (const one of data) {
      if (!this.rows.has(one.name)) this.rows.set(one.name, this.row(one.name, { open: () => this.open(one.name) }));
      const { row, mark, about } = this.rows.get(one.name);
      place(mark, one.tiers, one.pinned);
      say(about, aboutOf(one));
      if (before.nextElementSibling !== row) before.after(row);
      before = row;
    }
    this.filter();
  }

  /** Tick what is chosen. */
  tick(chosen) {
    for (const { name, box } of [this.base, ...this.rows.values()]) box.checked = chosen.includes(name);
  }

  filter() {
    const wanted = $("filter").value.trim().toLowerCase();
    let shown = 0;
    for (const { name, row, about } of this.rows.values()) {
      row.hidden = !`${name} ${about.textContent}`.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    const count = this.rows.size;
    say($("count"), wanted ? `${shown} of ${counted(count, "adapter")}` : counted(count, "adapter"));
  }

  row(name, { about = "", open = null }) {
    const box = element("input", { type: "checkbox", change: () => this.choose(name, box.checked) });
    const said = element("small", {}, about);
    const mark = open ? placeMark() : null;
    const label = element("label", {}, box, element("span", { class: "name" }, name));
    const row = element("li", {}, label, said);
    if (open) {
      label.after(mark);
      const told = { type: "button", class: "quiet", "aria-label": `Versions of ${name}`, click: open };
      row.append(element("button", told, "Versions"));
    }
    return { name, row, box, mark, about: said };
  }
}

function aboutOf(one) {
  const newest = one.versions.length ? `version ${one.versions.at(-1)}` : "";
  const aliases = Object.entries(one.aliases).map(([alias, target]) => `${alias} → ${numberOf(target)}`);
  return [one.method, one.bytes ? bytes(one.bytes) : "", newest, ...aliases].filter(Boolean).join(" · ");
}

/** The number of the version in `cards@2`. */
export const numberOf = (reference) => Number(reference.slice(reference.lastIndexOf("@") + 1));
