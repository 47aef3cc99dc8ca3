// Asks `POST /chat/ui` through the transport of the Vercel AI SDK, as `useChat` does. Needs `npm install ai`.
//
//   NAKA_KEY=nk_... node ui_client.mjs "What is a webhook?"
//
// In a React page the same transport is given to the hook:
//
//   const { messages, sendMessage, error } = useChat({ transport });   // from "@ai-sdk/react"

import { DefaultChatTransport, generateId, readUIMessageStream } from "ai";

const URL = process.env.NAKA_URL ?? "http://127.0.0.1:8000";

const transport = new DefaultChatTransport({
  api: `${URL}/chat/ui?usage=1`, // the answer's usage is its metadata
  headers: () => ({ authorization: `Bearer ${process.env.NAKA_KEY ?? ""}` }), // in a browser: a short-lived token
});

const text = process.argv[2] ?? "What is a webhook?";
try {
  const stream = await transport.sendMessages({
    trigger: "submit-message",
    chatId: generateId(),
    messages: [{ id: generateId(), role: "user", parts: [{ type: "text", text }] }],
  });
  let said = "", usage;
  for await (const message of readUIMessageStream({ stream, terminateOnError: true })) {
    const whole = message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
    process.stdout.write(whole.slice(said.length));
    [said, usage] = [whole, message.metadata?.usage];
  }
  process.stdout.write("\n");
  if (process.env.NAKA_USAGE) console.error(`${usage.input_tokens} in, ${usage.output_tokens} out`);
} catch (error) {
  const problem = JSON.parse(error.message); // of a refusal, and of an answer that broke off
  console.error(`${problem.status} ${problem.detail}`);
  process.exit(1);
}
