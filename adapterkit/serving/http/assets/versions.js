// One adapter's versions and aliases; moving an alias, and rolling it back.

import { change, inWords, setKey } from "./api.js";
import { numberOf } from "./adapters.js";
import { $, element, placeMark, say } from "./dom.js";

const MOST = 50; // versions in the table; the form has all of them

export class Versions {
  /** `choose(model, isChosen)` and `isChosen(model)` are of what is compared; `renew()` has the list read anew. */
  constructor({ choose, isChosen, renew }) {
    Object.assign(this, { choose, isChosen, renew, name: "", aliases: {}, shown: "" });
    $("versions-close").addEventListener("click", () => $("versions").close());
    $("versions").addEventListener("close", () => (this.name = ""));
    $("move").addEventListener("submit", (event) => {
      event.preventDefault();
      this.change($("move-alias").value.trim(), "", { version: Number($("move-version").value) });
    });
  }

  open(name, served, hasStore) {
    Object.assign(this, { name, shown: "" });
    say($("versions-title"), name);
    say($("versions-said"), "");
    $("move-why").value = "";
    $("move-alias").value = Object.keys(served.aliases)[0] ?? "";
    this.tell(served, hasStore);
    $("versions").showModal();
  }

  /** What is so now; null where the adapter is served no more. Nothing is touched that has not changed. */
  tell(served, hasStore) {
    if (!this.name) return;
    const found = JSON.stringify([served?.versions, served?.aliases, served?.version_tiers, hasStore]);
    if (found === this.shown) return;
    this.shown = found;
    const versions = served?.versions ?? [];
    say($("versions-why"), versions.length ? "" : reasonFor(served, hasStore));
    $("versions-body").hidden = !versions.length;
    if (!versions.length) return;
    this.aliases = {};
    for (const [alias, target] of Object.entries(served.aliases)) this.aliases[alias] = numberOf(target);
    const focused = document.activeElement?.dataset.focus;
    this.fill([...versions].reverse(), served.version_tiers);
    if (focused) $("versions").querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  fill(versions, tiers) {
    const names = Object.keys(this.aliases).sort();
    const pointing = (number) => names.filter((alias) => this.aliases[alias] === number).join(", ");
    const version = (number) => line(number, placeMark(tiers[number]), pointing(number), this.box(number));
    const alias = (name) => line(name, this.aliases[name], this.box(name), this.back(name));
    const more = `The newest ${MOST} of ${versions.length} versions; the form below has all of them.`;
    $("versions-rows").replaceChildren(...versions.slice(0, MOST).map(version));
    say($("versions-more"), versions.length > MOST ? more : "");
    $("aliases-rows").replaceChildren(...names.map(alias));
    $("aliases-table").hidden = !names.length;
    $("move-known").replaceChildren(...names.map((name) => element("option", { value: name })));
    const chosen = Number($("move-version").value);
    $("move-version").replaceChildren(...versions.map((number) => element("option", { value: number }, number)));
    $("move-version").value = String(versions.includes(chosen) ? chosen : versions[0]);
  }

  box(which) {
    const model = `${this.name}@${which}`;
    const change = () => this.choose(model, box.checked);
    const told = { type: "checkbox", "aria-label": `Compare ${model}`, "data-focus": `box ${which}`, change };
    const box = element("input", told);
    box.checked = this.isChosen(model);
    return box;
  }

  back(alias) {
    const click = () => this.change(alias, "/rollback", {});
    const label = { type: "button", "aria-label": `Roll ${alias} back`, "data-focus": `back ${alias}`, click };
    return element("button", label, "Roll back");
  }

  /** Move an alias, unless it points elsewhere than the page shows: then somebody was faster, and nothing is moved. */
  async change(alias, kind, body) {
    const name = this.name;
    const path = `v1/adapters/${encodeURIComponent(name)}/aliases/${encodeURIComponent(alias)}${kind}`;
    say($("versions-said"), "Asking the server");
    try {
      setKey("admin", $("admin-key").value);
      const moved = await change(path, { ...body, expect: this.aliases[alias] ?? null, why: $("move-why").value });
      if (this.name === name) say($("versions-said"), `${alias} points at version ${moved.version} now.`);
      $("move-why").value = "";
    } catch (error) {
      if (this.name !== name) return;
      say($("versions-said"), inWords(error));
      if (error.status === 401 || error.status === 403) $("admin-key").focus();
    }
    this.renew();
  }
}

function line(name, ...cells) {
  return element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, cell)));
}

function reasonFor(served, hasStore) {
  if (!served) return "It is not served any more.";
  if (!hasStore) return "It has no versions or aliases: these are a store's, and this server was started without one.";
  return "It has no versions or aliases: its name was given when the server was started, and is not in the store.";
}
