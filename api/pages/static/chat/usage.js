/**
 * What an answer used, and what is left, from the server's own records. All of it is best effort: when it cannot be
 * known, nothing is shown.
 */
import { NUMBERS, clock } from "./words.js";

const SETTLE_WAITS_MS = [0, 500, 1500, 3000]; // a stopped answer is settled a moment later
const LOW_SHARE = 0.1; // of a window's limit, from which on the line about what is left warns
const NANO = 1e9;
const { admin } = document.getElementById("main").dataset;

/** JSON of a GET, or null: an answer is shown without these figures if a read fails. */
const read = (path) => fetch(path, { cache: "no-store" })
  .then((response) => (response.ok ? response.json() : null)).catch(() => null);

/** The settled request with this id, or null. */
export async function requestOf(id) {
  for (const wait_ms of id ? SETTLE_WAITS_MS : []) {
    await new Promise((go) => setTimeout(go, wait_ms));
    const found = await read(`/v1/usage/requests/${encodeURIComponent(id)}`);
    if (found?.state !== "open") return found;
  }
  return null;
}

/** Of the windows that count tokens, the one with the least left: today's 5,000 don't help if the period has 200. */
export async function tightest() {
  const windows = (await read("/v1/limits"))?.windows ?? [];
  return windows
    .filter((w) => w.meter in TOKENS && w.window !== "minute" && Number.isFinite(w.remaining))
    .sort((a, b) => a.remaining - b.remaining)[0];
}

const TOKENS = { tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens" };
const tokensOf = (u) => u.input_tokens + u.output_tokens + u.cache_read_tokens + u.cache_write_5m_tokens + u.cache_write_1h_tokens;
const spanOf = (left) => (left.window === "day" ? "today" : "this period");
const remaining = (left) => Math.max(0, left.remaining).toLocaleString(NUMBERS);
const isLow = (left) => Boolean(left && left.remaining <= left.limit * LOW_SHARE);

/** [the line under an answer, whether it warns]. The provider's cost is for admins, if they may see it. */
export function usageLine(request, left) {
  const used = request?.state === "settled" ? tokensOf(request) : 0;
  const parts = [
    used > 0 && `This message used ${used.toLocaleString(NUMBERS)} tokens`,
    left && `${remaining(left)} ${used > 0 && left.meter === "tokens" ? "" : `${TOKENS[left.meter]} `}left ${spanOf(left)}`,
  ].filter(Boolean).join("; ");
  const more = isLow(left) ? `. More ${clock(Date.parse(left.resets_at))}` : "";
  const knowsCost = admin && used > 0 && Number.isFinite(request.cost_nano_usd);
  const cost = knowsCost ? `. Model cost ${usd(request.cost_nano_usd)}` : "";
  return [parts + more + cost, isLow(left)];
}

export const leftLine = (left) => (left ? `${remaining(left)} of ${left.limit.toLocaleString(NUMBERS)} ${TOKENS[left.meter]} left ${spanOf(left)}` : "");

/** Dollars, below one to four places, as the other pages write them. */
function usd(nano) {
  const places = nano > 0 && nano < NANO ? 4 : 2;
  const dollars = (nano / NANO).toLocaleString(NUMBERS, { minimumFractionDigits: places, maximumFractionDigits: places });
  return `$${dollars}`;
}
