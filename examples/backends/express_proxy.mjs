// Express: your backend names its signed-in user and passes the answer on, as it arrives.
import express from "express";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const PASSED = ["content-type", "cache-control", "x-accel-buffering", "retry-after", "x-request-id"];
export const router = express.Router();

// req.user is whoever is signed in: Passport, or your own middleware, sets it.
router.post("/chat", express.json(), async (req, res) => {
  const left = new AbortController();
  res.on("close", () => left.abort());
  const answer = await fetch(`${process.env.NAKA_URL}/chat`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.NAKA_KEY}`, // with the scope chat:as-user
      "naka-user": Buffer.from(req.user.name).toString("latin1"), // as UTF-8
      "content-type": "application/json",
    },
    body: JSON.stringify(req.body),
    signal: left.signal,
  });
  res.status(answer.status);
  for (const name of PASSED) if (answer.headers.has(name)) res.set(name, answer.headers.get(name));
  await pipeline(Readable.fromWeb(answer.body), res).catch(() => res.destroy()); // never look whole if it is not
});
