// Asks `POST /chat` and writes the answer as it arrives. Node 18 or newer, no packages.
//
//   NAKA_KEY=nk_... node node_client.mjs "What is a webhook?"

const URL = process.env.NAKA_URL ?? "http://127.0.0.1:8000";
const LONGEST_WAIT_S = 60;

/** [type, data] of each server-sent event. A chunk may end anywhere: in a character, in a line, in a line's end. */
async function* events(chunks) {
  const decoder = new TextDecoder();
  let rest = "", type = "message", data = [];
  for await (const chunk of chunks) {
    const text = rest + decoder.decode(chunk, { stream: true });
    const held = text.endsWith("\r") ? "\r" : ""; // may be half of a CRLF
    const lines = text.slice(0, text.length - held.length).split(/\r\n|\r|\n/);
    rest = lines.pop() + held;
    for (const line of lines) {
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (line === "") {
        if (data.length) yield [type, data.join("\n")];
        [type, data] = ["message", []];
      } else if (name === "data") data.push(value);
      else if (name === "event") type = value;
    }
  }
}

class Refused extends Error {}

async function ask(message, write) {
  const response = await fetch(`${URL}/chat`, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.NAKA_KEY ?? ""}`, "content-type": "application/json" },
    body: JSON.stringify({ message }),
  });
  if (!response.ok) {
    const problem = await response.json();
    const error = new Refused(`${response.status} ${problem.title}: ${problem.detail}`);
    throw Object.assign(error, { wait_s: Number(response.headers.get("retry-after") ?? Infinity) });
  }
  for await (const [type, data] of events(response.body)) {
    if (type === "done") return;
    if (type === "error") throw new Error(JSON.parse(data).detail);
    write(data);
  }
  throw new Error("the answer broke off");
}

const message = process.argv[2] ?? "What is a webhook?";
for (const last of [false, true]) {
  try {
    await ask(message, (text) => process.stdout.write(text));
    process.stdout.write("\n");
    process.exit(0);
  } catch (error) {
    console.error(error.message);
    if (last || !(error instanceof Refused) || !(error.wait_s <= LONGEST_WAIT_S)) process.exit(1);
    await new Promise((go) => setTimeout(go, error.wait_s * 1000));
  }
}
