// Asks `POST /chat` for one JSON object: the whole answer, and what it used. Node 18 or newer, no packages.
//
//   NAKA_KEY=nk_... node json_client.mjs "What is a webhook?"

const URL = process.env.NAKA_URL ?? "http://127.0.0.1:8000";

const response = await fetch(`${URL}/chat`, {
  method: "POST",
  headers: {
    authorization: `Bearer ${process.env.NAKA_KEY ?? ""}`,
    "content-type": "application/json",
    accept: "application/json",
  },
  body: JSON.stringify({ message: process.argv[2] ?? "What is a webhook?" }),
});
const answer = await response.json();
if (!response.ok) {
  console.error(`${response.status} ${answer.detail}`);
  process.exit(1);
}
console.log(answer.text);
if (process.env.NAKA_USAGE) console.error(`${answer.usage.input_tokens} in, ${answer.usage.output_tokens} out`);
