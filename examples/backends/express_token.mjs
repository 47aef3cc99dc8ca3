// Express: your page gets a token for its signed-in user, and asks Naka itself.
import express from "express";

export const router = express.Router();

// req.user is whoever is signed in: Passport, or your own middleware, sets it.
router.post("/chat-token", async (req, res) => {
  const made = await fetch(`${process.env.NAKA_URL}/v1/tokens`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.NAKA_KEY}`, // with the scope chat:as-user
      "content-type": "application/json",
    },
    body: JSON.stringify({ user: req.user.name, ttl_s: 600, origins: [process.env.APP_ORIGIN] }),
  });
  res.status(made.status).set("cache-control", "no-store").type(made.headers.get("content-type"));
  res.send(await made.text());
});
