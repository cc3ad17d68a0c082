// The page: what is chosen, and what the server says of itself.

import { Adapters } from "./adapters.js";
import { Refusal, get, hasKey, inWords, setKey } from "./api.js";
import { Charts } from "./charts.js";
import { Comparison } from "./compare.js";
import { $, say } from "./dom.js";
import { Versions } from "./versions.js";

const BUSY = 1000, IDLE = 3000, LONGEST = 15_000; // milliseconds between two looks at the server

let chosen = null; // names of models, in the order of the columns; null until it is known what there is
let stats = null;
let listDue = 0;
let wake = () => {};

const renew = () => look({ list: true });
const adapters = new Adapters({ choose, open: (name) => versions.open(name, adapters.served.get(name), stats.store) });
const comparison = new Comparison({ drop, news: renew });
const versions = new Versions({ choose, isChosen: (model) => chosen.includes(model), renew });
const charts = new Charts();

// -- what is chosen

function choose(model, isChosen) {
  chosen = chosen.filter((one) => one !== model);
  if (isChosen && model === stats.base) chosen.unshift(model);
  else if (isChosen) chosen.push(model);
  adapters.tick(chosen);
  comparison.show(chosen);
}

function drop(model) {
  const index = chosen.indexOf(model);
  choose(model, false);
  const next = $("answers").children[Math.min(index, chosen.length - 1)];
  (next?.querySelector("button") ?? $("filter")).focus();
}

$("other").addEventListener("submit", async (event) => {
  event.preventDefault();
  const model = $("other-value").value.trim();
  if (!model || !chosen) return;
  try {
    await get(`v1/models/${encodeURIComponent(model)}`);
    choose(model, true);
    $("other-value").value = "";
    say($("other-said"), "");
  } catch (error) {
    say($("other-said"), inWords(error));
  }
});

// -- asking

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  if (!prompt.trim()) return refuse("There is no prompt yet.", $("prompt"));
  if (!chosen?.length) return refuse("No model is chosen yet.", $("filter"));
  const asked = { stream_options: { include_usage: true } };
  asked.max_tokens = $("most").valueAsNumber;
  asked.temperature = $("temperature").valueAsNumber;
  if ($("seed").value) asked.seed = $("seed").valueAsNumber;
  const raw = $("raw").checked;
  const said = raw ? { prompt } : { messages: [{ role: "user", content: prompt }] };
  comparison.ask(raw ? "v1/completions" : "v1/chat/completions", { ...asked, ...said }, stats.base);
});

function refuse(why, place) {
  say($("said"), why);
  place.focus();
}

$("stop").addEventListener("click", () => comparison.stop());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("versions").open) comparison.stop();
  const isSent = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (isSent && event.target === $("prompt")) $("ask").requestSubmit();
});

// -- the key for asking

function showKey(isShown) {
  $("key").hidden = !isShown;
  $("key-open").setAttribute("aria-expanded", String(isShown));
}

$("key-open").addEventListener("click", () => {
  showKey($("key").hidden);
  if (!$("key").hidden) $("key-value").focus();
});
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key-value").value);
});
$("key-forget").addEventListener("click", () => useKey(""));

function useKey(key) {
  try {
    setKey("user", key);
  } catch (error) {
    return notice(inWords(error));
  }
  $("key-value").value = "";
  say($("key-open"), hasKey("user") ? "API key set" : "API key");
  $("key-open").focus();
  showKey(false);
  look({ list: true });
}

// -- what the server says of itself

function look({ list = false } = {}) {
  if (list) listDue = 0;
  wake();
}

function notice(text) {
  say($("notice"), text);
  $("notice").hidden = !text;
}

function tellState(state, said = state) {
  $("state").dataset.state = state;
  say($("state"), said);
}

async function watch() {
  let wait = BUSY;
  for (;;) {
    const woken = new Promise((resolve) => (wake = resolve)); // before asking: what is wanted meanwhile is not lost
    try {
      await once();
      wait = stats.running || stats.waiting || comparison.isAnswering ? BUSY : IDLE;
    } catch (error) {
      wait = failed(error, wait);
    }
    await Promise.race([woken, new Promise((resolve) => setTimeout(resolve, wait))]);
    while (document.hidden) await changed();
  }
}

/** Until the page is hidden, or seen again. */
function changed() {
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

async function once() {
  stats = await get("v1/stats");
  charts.add(stats);
  say($("base"), stats.base);
  tellState(stats.state);
  const began = performance.now();
  if (began >= listDue) {
    listDue = Infinity;
    await list(began);
  }
  notice(stats.state === "ready" ? "" : `The server takes no new requests: it is ${stats.state}.`);
}

async function list(began) {
  try {
    const { data } = await get("v1/adapters");
    adapters.tell(stats.base, data);
    chosen ??= [stats.base, ...data.slice(0, 1).map((one) => one.name)];
    adapters.tick(chosen);
    comparison.show(chosen);
    if (versions.name) versions.tell(adapters.served.get(versions.name), stats.store);
  } finally {
    const now = performance.now(); // a list that takes long is asked for the less often
    if (listDue === Infinity) listDue = now + Math.max(IDLE, 20 * (now - began));
  }
}

/** Say why there is no news; how long to wait until it is tried again. */
function failed(error, waited) {
  charts.gap();
  listDue = 0;
  if (error instanceof Refusal && error.status === 401) {
    notice(hasKey("user") ? "The server does not know this API key." : "This server asks for an API key.");
    tellState("refused", "no key");
    showKey(true);
    return 2 ** 30; // until a key is given
  }
  notice(error instanceof Refusal ? inWords(error) : "The server cannot be reached. This page keeps trying.");
  tellState("away", "not reached");
  return Math.min(LONGEST, Math.max(BUSY, 2 * waited, 1000 * (error.retryAfter ?? 0)));
}

watch();
