// A product that uses an example of `examples/backends`: node backends.mjs FRAMEWORK FORM PORT.
// Its sign-in is a stub: everybody is USER. The example itself runs unchanged.
import { createServer } from "node:http";
import { Readable } from "node:stream";

const USER = "Ada Łovelace, आदा";
const [framework, form, port] = process.argv.slice(2);
const example = await import(`./${framework}_${form}.mjs`);

if (framework === "express") {
  const { default: express } = await import("express");
  const app = express();
  app.use((req, _, next) => ((req.user = { name: USER }), next()));
  app.use(example.router);
  app.listen(Number(port), "127.0.0.1");
} else {
  // The part of Next.js that calls route handlers: a Request in, a Response out.
  createServer(async (req, res) => {
    if (!example[req.method]) return res.writeHead(405).end();
    const left = new AbortController();
    res.on("close", () => left.abort());
    const body = req.method === "POST" ? Readable.toWeb(req) : undefined;
    const request = new Request(`http://127.0.0.1:${port}${req.url}`, { method: req.method, body, duplex: "half", signal: left.signal });
    try {
      const answer = await example[req.method](request);
      res.writeHead(answer.status, Object.fromEntries(answer.headers));
      if (answer.body) for await (const chunk of answer.body) res.write(chunk);
      res.end();
    } catch {
      res.destroy();
    }
  }).listen(Number(port), "127.0.0.1");
}
