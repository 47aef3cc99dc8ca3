// Next.js, app/chat/route.js: your backend names its signed-in user and passes the answer on, as it arrives.
import { auth } from "@/auth"; // Auth.js, or whatever tells who is signed in

const PASSED = ["content-type", "cache-control", "x-accel-buffering", "retry-after", "x-request-id"];

export async function POST(request) {
  const session = await auth();
  if (!session) return new Response(null, { status: 401 });
  const answer = await fetch(`${process.env.NAKA_URL}/chat`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.NAKA_KEY}`, // with the scope chat:as-user
      "naka-user": Buffer.from(session.user.name).toString("latin1"), // as UTF-8
      "content-type": "application/json",
    },
    body: await request.text(),
    signal: request.signal, // the browser left
  });
  const kept = PASSED.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]);
  return new Response(answer.body, { status: answer.status, headers: kept });
}
