/**
 * One request to `/chat`: the earlier turns go along as far as they fit. The server's own words decide: while it says
 * that the input is too large, the oldest turns are left out, down to none.
 */
import { readEvents } from "../sse.js";
import { tightest } from "./usage.js";

const SILENCE_MS = 45_000; // the server sends a comment every 15 s: after three missing ones the connection is dead
const KEPT_SHARE = 2 / 3; // of the earlier turns' bytes, after each refusal
const BYTES_PER_TOKEN = 3; // about: decides only whether it is worth asking again
const TOO_LARGE = new Set(["input_exceeds_limit", "input_too_large", "body_too_large"]);
const encoder = new TextEncoder();
const bytesOf = (value) => encoder.encode(JSON.stringify(value)).length;

/** The text of a turn for the provider; none of a turn without an answer. */
const messagesOf = ({ asked, text }) => (text.trim() ? [{ role: "user", text: asked }, { role: "assistant", text }] : []);

/**
 * Opens the answer to `message`. Returns {response, from}: the turns before `from` were left out. Throws an error with
 * the `problem` of a refusal; `from` is where to begin.
 */
export async function open({ message, model, turns, from, maxBytes, signal }) {
  from = fitting(turns, from, maxBytes - bytesOf({ message, model, messages: [] }));
  for (;;) {
    const messages = turns.slice(from).flatMap(messagesOf);
    const body = { message, ...(model && { model }), ...(messages.length && { messages }) };
    const headers = { "Content-Type": "application/json", "Accept": "text/event-stream" };
    const response = await fetch("/chat", { method: "POST", headers, body: JSON.stringify(body), signal });
    if (response.ok) return { response, from };
    const retryAfter_s = Number(response.headers.get("Retry-After"));
    const problem = { ...parsed(await response.text()), status: response.status, retryAfter_s };
    if (!messages.length || !(await isTooLarge(problem, message))) throw failure(problem);
    from = fitting(turns, from + 1, bytesOf(messages) * KEPT_SHARE);
  }
}

/** Whether the same message with fewer earlier turns may be accepted. */
async function isTooLarge({ status, code }, message) {
  if (status === 413) return TOO_LARGE.has(code);
  if (status !== 429 || code !== "limit_reached") return false;
  const left = await tightest();
  return Boolean(left && left.remaining > bytesOf(message) / BYTES_PER_TOKEN);
}

/** The first turn, not before `from`, from which on the turns have at most so many bytes. */
function fitting(turns, from, bytes) {
  let first = turns.length;
  for (; first > from; first--) {
    bytes -= bytesOf(messagesOf(turns[first - 1]));
    if (bytes < 0) break;
  }
  return first;
}

/** The pieces of the answer. Throws when it does not end as it should. */
export async function* pieces(response) {
  for await (const { type, data } of readEvents(response.body, SILENCE_MS)) {
    if (type === "error") throw failure({ status: 502, ...parsed(data) });
    if (type === "done") return; // the answer is complete, and its usage is committed
    if (type === "message") yield data;
  }
  throw failure({ status: 0 });
}

const failure = (problem) => Object.assign(new Error(problem.title), { problem });
const parsed = (json) => { try { return JSON.parse(json); } catch { return {}; } };
