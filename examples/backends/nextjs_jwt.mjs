// Next.js, app/chat-token/route.js: your own JWT for the signed-in user. app/.well-known/jwks.json/route.js exports GET.
import { auth } from "@/auth"; // Auth.js, or whatever tells who is signed in
import { importJWK, SignJWT } from "jose";
import { readFileSync } from "node:fs";

const jwk = JSON.parse(readFileSync(process.env.JWT_KEY_FILE)); // a private JWK of P-256, with a kid
const { d: _, ...open } = jwk;

export const GET = () => Response.json({ keys: [open] });

export async function POST() {
  const session = await auth();
  if (!session) return new Response(null, { status: 401 });
  const token = await new SignJWT()
    .setProtectedHeader({ alg: "ES256", kid: jwk.kid })
    .setIssuer(process.env.APP_ORIGIN)
    .setAudience("naka")
    .setSubject(session.user.name)
    .setIssuedAt()
    .setExpirationTime("10m")
    .sign(await importJWK(jwk, "ES256"));
  return Response.json({ token });
}
