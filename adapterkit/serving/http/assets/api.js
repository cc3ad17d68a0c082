// Asking the server. Keys are held in this module, and nowhere else.

const OPENINGS = { 401: "Not let in", 403: "Not allowed", 404: "Not found", 429: "Busy" };
const keys = { user: "", admin: "" };

/** What the server has refused, and why. */
export class Refusal extends Error {
  constructor(status, message, code, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** No answer at all, or only the beginning of one. */
export class Unreachable extends Error {}

/** Send this key from now on, for asking ("user") or changing what is served ("admin"); an empty text for none. */
export function setKey(role, key) {
  const kept = key.trim();
  if (!/^[\x21-\x7e]*$/.test(kept)) throw new Refusal(0, "a key is of printable ASCII, without spaces");
  keys[role] = kept;
}

export const hasKey = (role) => keys[role] !== "";

export async function get(path) {
  const response = await send(path, { signal: AbortSignal.timeout(15_000) });
  return await read(response);
}

export async function change(path, body) {
  const response = await send(path, { method: "POST", body, role: "admin", signal: AbortSignal.timeout(60_000) });
  return await read(response);
}

/** Ask for a stream: what answers, and its chunks as they come. */
export async function stream(path, body, signal) {
  const response = await send(path, { method: "POST", body: { ...body, stream: true }, signal });
  return { digest: response.headers.get("x-adapterkit-digest") ?? "", chunks: chunks(response, signal) };
}

async function* chunks(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Unreachable("the connection broke before the answer was whole");
    });
    if (done) throw new Unreachable("the connection ended before the answer was whole");
    const events = (kept + value).split("\n\n");
    kept = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      const chunk = parse(data);
      if (chunk.error) throw new Refusal(200, String(chunk.error.message), chunk.error.code);
      yield chunk;
    }
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Unreachable("what came is no part of an answer");
  }
}

async function send(path, { method = "GET", body, role = "user", signal }) {
  const key = role === "admin" ? keys.admin || keys.user : keys.user;
  const asked = { method, signal, headers: {}, cache: "no-store", credentials: "omit", redirect: "error" };
  if (key) asked.headers.authorization = `Bearer ${key}`;
  if (body) {
    asked.headers["content-type"] = "application/json";
    asked.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the server cannot be reached");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function read(response) {
  try {
    return await response.json();
  } catch {
    throw new Unreachable("the connection ended before the answer was whole");
  }
}

async function refusal(response) {
  const told = await response.json().then((body) => body.error, () => null);
  const message = told?.message ?? `the server answered ${response.status} ${response.statusText}`.trim();
  return new Refusal(response.status, String(message), told?.code, Number(response.headers.get("retry-after")) || 0);
}

/** An error in a sentence, for people. */
export function inWords(error) {
  if (!(error instanceof Refusal)) return sentence(error.message);
  const opening = error.code === "conflict" ? "Moved meanwhile" : OPENINGS[error.status];
  const wait = error.status === 429 && error.retryAfter ? `. Try again in ${error.retryAfter} s` : "";
  return sentence((opening ? `${opening}: ` : "") + error.message + wait);
}

function sentence(text) {
  const opened = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(opened) ? opened : `${opened}.`;
}
