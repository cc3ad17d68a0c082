// Answers side by side, each as it comes.

import { Unreachable, inWords, stream } from "./api.js";
import { $, counted, element, rate, say, seconds } from "./dom.js";

const AT_ONCE = 5; // browsers open six connections to a server, and one is for what the page shows beside the answers

export class Comparison {
  /** `drop(model)` is called to take a column away; `news()` where answers begin and end. */
  constructor({ drop, news }) {
    Object.assign(this, { drop, news, shown: [], columns: new Map(), stopping: null });
  }

  get isAnswering() {
    return this.stopping !== null;
  }

  /** Have a column for each model, in this order. */
  show(models) {
    this.shown = [...models];
    for (const [model, column] of this.columns) {
      if (models.includes(model)) continue;
      column.leave();
      this.columns.delete(model);
    }
    const nodes = $("answers").children;
    models.forEach((model, index) => {
      if (!this.columns.has(model)) this.columns.set(model, new Column(model, () => this.drop(model)));
      const { node } = this.columns.get(model);
      if (nodes[index] !== node) $("answers").insertBefore(node, nodes[index] ?? null);
    });
  }

  /** Ask all of them the same; what is under way is given up. */
  async ask(path, body, base) {
    this.stop();
    const stopping = (this.stopping = new AbortController());
    const columns = this.shown.map((model) => this.columns.get(model));
    const waiting = [...columns], began = performance.now();
    columns.forEach((column) => column.clear());
    this.say(`Asking ${counted(columns.length, "model")}`);
    const work = async () => {
      for (let column; (column = waiting.shift()) && !stopping.signal.aborted; ) {
        await column.ask(path, body, stopping.signal);
        const done = columns.filter((one) => !one.isUnderWay).length;
        if (this.stopping === stopping) this.say(`${done} of ${counted(columns.length, "answer")}`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (this.stopping !== stopping) return;
    this.stopping = null;
    const whole = columns.filter((column) => column.isWhole);
    const alone = whole.find((column) => column.model === base);
    whole.forEach((column) => column.compareWith(column === alone ? null : alone));
    const lacking = columns.filter((column) => column.node.dataset.state === "failed").length;
    const took = seconds((performance.now() - began) / 1000);
    this.say(`${counted(whole.length, "answer")} in ${took}${lacking ? `, ${lacking} failed` : ""}`);
  }

  /** Give up what is under way; the server then gives it up too. */
  stop() {
    if (!this.stopping) return;
    this.stopping.abort();
    this.stopping = null;
    for (const column of this.columns.values()) if (column.isUnderWay) column.tell("stopped", "stopped");
    this.say("Stopped");
  }

  say(text) {
    say($("said"), text);
    $("stop").setAttribute("aria-disabled", String(!this.isAnswering));
    this.news();
  }
}

class Column {
  constructor(model, drop) {
    this.model = model;
    this.leaving = new AbortController();
    this.title = element("h3", {}, model);
    this.status = element("span", { class: "status" });
    this.digest = element("code");
    this.same = element("span", { class: "same" });
    this.text = element("div", { class: "text", "aria-live": "polite" });
    this.problem = element("p", { class: "problem", role: "status" });
    this.figures = element("p", { class: "figures" });
    const told = { type: "button", class: "quiet close", "aria-label": `Leave out ${model}`, click: drop };
    const close = element("button", told, "×");
    const facts = element("p", { class: "facts" }, this.status, this.digest, this.same);
    this.node = element("article", { class: "answer", "aria-label": `Answer of ${model}` });
    this.node.append(element("header", {}, this.title, close), facts, this.text, this.problem, this.figures);
    this.clear("not asked yet");
  }

  get isUnderWay() {
    return ["in line", "waiting", "answering"].includes(this.node.dataset.state);
  }

  get isWhole() {
    return this.node.dataset.state === "whole";
  }

  clear(status = "in line") {
    for (const node of [this.text, this.problem, this.figures, this.digest, this.same]) say(node, "");
    this.tell(status, status);
  }

  /** Nothing more comes here. */
  leave() {
    this.leaving.abort();
    this.node.remove();
  }

  async ask(path, body, stopped) {
    const signal = AbortSignal.any([stopped, this.leaving.signal]);
    if (signal.aborted) return;
    this.tell("waiting", "waiting");
    this.text.ariaBusy = "true";
    const asked = performance.now();
    try {
      const { digest, chunks } = await stream(path, { ...body, model: this.model }, signal);
      say(this.digest, digest.slice(0, 12));
      this.digest.title = `digest ${digest}`;
      await this.follow(chunks, asked);
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    } finally {
      this.text.ariaBusy = "false";
    }
  }

  async follow(chunks, asked) {
    const text = this.text.appendChild(document.createTextNode(""));
    let first = 0, last = 0, reason = "", usage = null;
    for await (const chunk of chunks) {
      const [choice] = chunk.choices ?? [];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      reason = choice?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
      if (!piece) continue;
      last = performance.now();
      if (!first) {
        first = last;
        this.tell("answering", "answering");
        this.tellFigures(`first token ${seconds((first - asked) / 1000)}`);
      }
      text.appendData(piece);
    }
    const made = usage?.completion_tokens ?? 0;
    const pace = made > 1 && last > first ? `${rate(((made - 1) * 1000) / (last - first))} tokens/s` : "";
    this.tellFigures(first ? `first token ${seconds((first - asked) / 1000)}` : "", pace, counted(made, "token"));
    this.tell("whole", reason === "length" ? "at the token limit" : "complete");
    if (!text.data) say(this.problem, "The answer is empty.");
  }

  tellFigures(...figures) {
    this.figures.replaceChildren(...figures.filter(Boolean).map((figure) => element("span", {}, figure)));
  }

  fail(error) {
    const isCut = error instanceof Unreachable && this.text.textContent !== "";
    this.tell("failed", isCut ? "cut off" : "no answer");
    say(this.problem, inWords(error));
  }

  /** Say whether the adapter has changed anything. */
  compareWith(base) {
    say(this.same, base && this.text.textContent === base.text.textContent ? "same as the base" : "");
  }

  tell(state, status) {
    this.node.dataset.state = state;
    say(this.status, status);
  }
}
