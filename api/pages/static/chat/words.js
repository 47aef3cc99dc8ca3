/** The words of the page: errors and the next step, times and spans, and why an answer ended early. */

export const NUMBERS = document.documentElement.dataset.numbers; // the locale that groups digits as the other pages do
const { admin, longest } = document.getElementById("main").dataset;

/* Status 0 is ours: a line that broke, not an answer. */
const WORDS = {
  0: "The connection broke off. Check your network, then send again.",
  401: "Your session has ended. Sign in again: your message is kept.",
  402: admin ? "Your plan does not cover this. Check the subscription and its open bills."
             : "Your plan does not cover this. Ask your admin to check the subscription.",
  403: "This key has no access to chat. Sign in with another key, or ask your admin for one.",
  413: "This message is too long. Shorten it and send it again.",
  429: "Too many requests at once. Try again in a moment.",
  502: "Claude did not answer. Send it again.",
  503: "Claude is busy. Try again.",
  504: "Claude took too long to answer. Send it again.",
};

export function wordsFor(status, code, opensAt_ms) {
  if (code === "limit_reached") return `You have reached your limit.${opensAt_ms ? ` You can send again ${clock(opensAt_ms)}.` : ""}`;
  if (code === "wallet_empty") return "Your account's wallet does not cover this message.";
  if (code === "blocked") return "No requests are allowed right now. Ask your admin.";
  if (code === "held") return "Your other answers are still being written. You can send again in a moment.";
  return WORDS[status] ?? (status < 500 ? "This message was not accepted. Change it and send it again."
                                        : "Something went wrong on our side. Send it again.");
}

/* The page that helps, by the error's code: [path, words]. */
const WAYS = {
  401: ["/sign-in?next=%2F", "Sign in"],
  402: admin && ["/account", "See your account"],
  403: ["/sign-in?next=%2F", "Sign in with another key"],
  429: admin && ["/account/plan", "See the plans"],
};

export function wayFrom(status, code) {
  if (code === "wallet_empty") return admin && ["/account/wallet", "Add money"];
  return code === "limit_reached" || status !== 429 ? WAYS[status] : null;
}

export function clock(at_ms) {
  const at = new Date(at_ms);
  const time = `at ${at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" })}`;
  return at.toDateString() === new Date().toDateString() ? time : `on ${at.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" })} ${time}`;
}

export function span(left_ms) {
  const s = Math.ceil(left_ms / 1000);
  const [size, unit, part, of] = s < 3600 ? [60, "min", 1, "s"] : s < 86_400 ? [3600, "h", 60, "min"] : [86_400, "d", 3600, "h"];
  return s < 60 ? `${s} s` : `${Math.floor(s / size)} ${unit} ${Math.floor((s % size) / part)} ${of}`;
}

/** The reason why a complete answer was cut, or nothing. `used`: its request, as `GET /v1/usage/requests/{id}` tells it. */
export function whyCut(used) {
  if (used?.stop_reason === "model_context_window_exceeded") return "This answer was cut: the conversation fills the model's window.";
  if (used?.stop_reason !== "max_tokens") return "";
  if (used.granted_output_tokens < Number(longest)) return "This answer was cut: it reached the end of your limit.";
  return `This answer was cut: it reached the most that one answer may have, ${Number(longest).toLocaleString(NUMBERS)} tokens.`;
}
