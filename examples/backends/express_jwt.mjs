// Express: your own JWT for the signed-in user. Naka reads your public key at /.well-known/jwks.json.
import express from "express";
import { importJWK, SignJWT } from "jose";
import { readFileSync } from "node:fs";

const jwk = JSON.parse(readFileSync(process.env.JWT_KEY_FILE)); // a private JWK of P-256, with a kid
const key = await importJWK(jwk, "ES256");
const { d: _, ...open } = jwk;
export const router = express.Router();

router.get("/.well-known/jwks.json", (_, res) => res.json({ keys: [open] }));

// req.user is whoever is signed in: Passport, or your own middleware, sets it.
router.post("/chat-token", async (req, res) => {
  const token = await new SignJWT()
    .setProtectedHeader({ alg: "ES256", kid: jwk.kid })
    .setIssuer(process.env.APP_ORIGIN)
    .setAudience("naka")
    .setSubject(req.user.name)
    .setIssuedAt()
    .setExpirationTime("10m")
    .sign(key);
  res.json({ token });
});
