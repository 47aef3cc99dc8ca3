// Asks `POST /chat` for plain text and writes it as it arrives. Node 18 or newer, no packages.
//
//   NAKA_KEY=nk_... node text_client.mjs "What is a webhook?"

const URL = process.env.NAKA_URL ?? "http://127.0.0.1:8000";

const response = await fetch(`${URL}/chat`, {
  method: "POST",
  headers: {
    authorization: `Bearer ${process.env.NAKA_KEY ?? ""}`,
    "content-type": "application/json",
    accept: "text/plain",
  },
  body: JSON.stringify({ message: process.argv[2] ?? "What is a webhook?" }),
});
if (!response.ok) {
  console.error(`${response.status} ${(await response.json()).detail}`);
  process.exit(1);
}
try {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // a chunk may end inside a character
  for await (const chunk of response.body) process.stdout.write(decoder.decode(chunk, { stream: true }));
  process.stdout.write("\n");
} catch {
  console.error("\nthe answer broke off"); // without a last chunk, reading fails
  process.exit(1);
}
