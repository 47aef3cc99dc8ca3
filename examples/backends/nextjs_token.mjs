// Next.js, app/chat-token/route.js: your page gets a token for its signed-in user, and asks Naka itself.
import { auth } from "@/auth"; // Auth.js, or whatever tells who is signed in

export async function POST() {
  const session = await auth();
  if (!session) return new Response(null, { status: 401 });
  const made = await fetch(`${process.env.NAKA_URL}/v1/tokens`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.NAKA_KEY}`, // with the scope chat:as-user
      "content-type": "application/json",
    },
    body: JSON.stringify({ user: session.user.name, ttl_s: 600, origins: [process.env.APP_ORIGIN] }),
  });
  const headers = { "cache-control": "no-store", "content-type": made.headers.get("content-type") };
  return new Response(made.body, { status: made.status, headers });
}
