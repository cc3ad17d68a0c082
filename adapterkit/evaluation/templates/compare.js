
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const KEY = "adapterkit-marks-" + data.comparison;
const TIE = -1;
const state = restore() || { blind: data.blind, at: 0, filter: data.rows.some(differs) ? "differ" : "all", orders: {}, marks: {} };
let shown = [];

function restore() {
  try { return JSON.parse(localStorage.getItem(KEY)); } catch { return null; }
}
function keep() {
  try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { /* a page from a file may have no storage */ }
}
function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;  // text, never markup: what models say is data
  if (className) made.className = className;
  return made;
}
function differs(row) { return new Set(row.answers).size > 1; }
function number(value) {
  if (value === null) return "–";
  return Math.abs(value) < 1000 ? value.toFixed(4) : value < 1e9 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
}
function signed(value) { return value === null ? "–" : (value > 0 ? "+" : "") + number(value); }
function range(interval, write) { return interval ? `[${write(interval[0])}, ${write(interval[1])}]` : ""; }

// each row has its own order of the answers, drawn once; without hiding names it is the same for all
function order(place) {
  const plain = data.names.map((_, k) => k);
  if (!state.blind) return plain;
  if (!state.orders[place]) {
    for (let k = plain.length - 1; k > 0; k--) {
      const other = crypto.getRandomValues(new Uint32Array(1))[0] % (k + 1);
      [plain[k], plain[other]] = [plain[other], plain[k]];
    }
    state.orders[place] = plain;
  }
  return state.orders[place];
}
function label(position, adapter) { return state.blind ? "Answer " + String.fromCharCode(65 + position) : data.names[adapter]; }

function head(table, cells) {
  const row = element("tr");
  cells.forEach((cell) => { const made = element("th", cell); made.scope = "col"; row.append(made); });
  const made = element("thead"); made.append(row); table.replaceChildren(made, element("tbody"));
  return table.lastChild;
}
function line(body, name, cells) {
  const row = element("tr"), first = element("th", name);
  first.scope = "row"; row.append(first);
  cells.forEach(([text, small]) => {
    const cell = element("td", text);
    if (small) cell.append(" ", element("small", small));
    row.append(cell);
  });
  body.append(row);
}
function drawScores() {
  by("scores").hidden = state.blind || !data.scores.length;
  const body = head(by("score-table"), ["", ...data.names]);
  data.scores.forEach((one) => line(body, one.score, one.values.map((value, k) => [number(value), range(one.intervals[k], number)])));
  by("differences").hidden = !data.differences.length;
  const apart = head(by("difference-table"), ["", "difference", "p"]);
  data.differences.forEach((one) => line(apart, `${one.score}: ${one.first} less ${one.second}`,
    [[signed(one.value), range(one.interval, signed)], [one.p_value < 0.001 ? "< 0.001" : one.p_value.toFixed(3), one.test]]));
}
function drawMarks() {
  const marks = Object.entries(state.marks);
  by("marked").hidden = state.blind || !marks.length;
  const body = head(by("mark-table"), ["", "better", "worse", "tie"]);
  data.names.forEach((one, a) => data.names.slice(a + 1).forEach((other, offset) => {
    const b = a + 1 + offset, count = (wanted) => marks.filter(([, mark]) => mark.best === wanted).length;
    line(body, `${other} against ${one}`, [[String(count(b))], [String(count(a))], [String(count(TIE))]]);
  }));
}
function choose() {
  const all = data.rows.map((_, place) => place);
  shown = all.filter((place) => state.filter === "all" || (state.filter === "differ" ? differs(data.rows[place]) : !(place in state.marks)));
}
function fill(id, text) {
  by(id).textContent = text || "(nothing)";
  by(id).classList.toggle("empty", !text);
}
function draw() {
  const marked = Object.keys(state.marks).length, total = data.rows.length;
  by("about").textContent = `${total} rows with answers, ${data.rows.filter(differs).length} answered in more than one way. ${marked} marked.`;
  by("filter").value = state.filter;
  by("blind").textContent = state.blind ? (marked === total ? "All marked: show names" : "Show names") : "Hide names";
  by("blind").setAttribute("aria-pressed", String(state.blind));
  by("download").disabled = !marked;
  state.at = Math.max(0, Math.min(state.at, shown.length - 1));
  const place = shown[state.at], none = place === undefined;
  by("row").hidden = none; by("nothing").hidden = !none;
  by("previous").disabled = none || state.at === 0; by("next").disabled = none || state.at >= shown.length - 1;
  by("choices").replaceChildren();
  if (!none) drawRow(place);
  drawScores(); drawMarks();
}
function drawRow(place) {
  const row = data.rows[place], mark = state.marks[place];
  by("place").textContent = `Row ${row.row + 1} (${state.at + 1} of ${shown.length})`;
  fill("prompt", row.prompt); fill("expected", row.expected);
  by("answers").replaceChildren();
  order(place).forEach((adapter, position) => {
    const best = mark && mark.best === adapter, box = element("section", undefined, "answer" + (best ? " best" : ""));
    const title = element("h4", `${position + 1} · ${label(position, adapter)}`);
    if (row.answers[adapter].trim() === row.expected.trim()) title.append(element("small", "as expected"));
    const text = element("div", row.answers[adapter] || "(nothing)", "text" + (row.answers[adapter] ? "" : " empty"));
    text.dir = "auto"; box.append(title, text); by("answers").append(box);
    by("choices").append(choice(`${position + 1} best`, best, () => set(place, adapter)));
  });
  by("choices").append(choice("0 tie", mark && mark.best === TIE, () => set(place, TIE)));
}
function choice(text, pressed, act) {
  const made = element("button", text);
  made.type = "button"; made.setAttribute("aria-pressed", String(Boolean(pressed))); made.addEventListener("click", act);
  return made;
}
function say(text) { by("said").textContent = text; }
function set(place, best) {
  state.marks[place] = { best, blind: state.blind, shown: [...order(place)], when: new Date().toISOString() };
  keep(); say(best === TIE ? "A tie." : `${label(order(place).indexOf(best), best)} is best.`);
  if (state.filter === "open") { choose(); draw(); } else if (state.at < shown.length - 1) move(1); else draw();
}
function clear() {
  const place = shown[state.at];
  if (place === undefined || !(place in state.marks)) return;
  delete state.marks[place]; keep(); say("The mark is gone."); draw();
}
function move(by_) {
  state.at += by_; draw(); keep(); window.scrollTo({ top: by("tools").offsetTop });
  if (shown.length) say(by("place").textContent);
}
function hide() { state.blind = !state.blind; draw(); keep(); say(state.blind ? "Names are hidden." : "Names are shown."); }
function download() {
  const marks = Object.entries(state.marks).map(([place, mark]) => ({
    row: data.rows[place].row, best: mark.best === TIE ? null : data.names[mark.best], blind: mark.blind,
    shown: mark.shown.map((k) => data.names[k]), when: mark.when,
  }));
  const file = { schema: 1, kind: "adapterkit marks", comparison: data.comparison, title: data.title, adapters: data.names, rows: data.rows.length, marks };
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 2) + "\n"], { type: "application/json" }));
  link.download = "marks.json"; link.click(); URL.revokeObjectURL(link.href);
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  const place = shown[state.at], digit = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
  if (digit !== null && place !== undefined && digit <= data.names.length) set(place, digit === 0 ? TIE : order(place)[digit - 1]);
  else if (event.key === "ArrowLeft" && state.at > 0) move(-1);
  else if (event.key === "ArrowRight" && state.at < shown.length - 1) move(1);
  else if (event.key === "Backspace" || event.key === "Delete") clear();
  else if (event.key.toLowerCase() === "b") hide();
  else if (event.key.toLowerCase() === "d" && Object.keys(state.marks).length) download();
  else return;
  event.preventDefault();
});
by("filter").addEventListener("change", (event) => { state.filter = event.target.value; state.at = 0; choose(); draw(); keep(); });
by("blind").addEventListener("click", hide);
by("download").addEventListener("click", download);
by("previous").addEventListener("click", () => move(-1));
by("next").addEventListener("click", () => move(1));
choose(); draw();
