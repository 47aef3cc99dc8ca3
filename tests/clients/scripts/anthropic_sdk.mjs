// Anthropic's TypeScript SDK.

import Anthropic from "@anthropic-ai/sdk";

import { failureOf, prompt, run, TASK, WEATHER, WRONG_KEY } from "./driver.mjs";

const client = new Anthropic({ baseURL: TASK.url, apiKey: TASK.key });
const basic = { model: TASK.model, max_tokens: 3000 };
const said = (name, more = {}) =>
  client.messages.create({ ...basic, messages: [{ role: "user", content: prompt(name) }], ...more });
const usageOf = ({ usage }) => [
  usage.input_tokens,
  usage.output_tokens,
  usage.cache_read_input_tokens ?? 0,
  usage.cache_creation_input_tokens ?? 0,
];

const refused = (name, apiKey) =>
  failureOf(() =>
    client
      .withOptions({ apiKey })
      .messages.create({ ...basic, messages: [{ role: "user", content: prompt(name) }] }),
  );

await run({
  async text() {
    const answer = await said("text");
    if (!answer._request_id) throw new Error("no request id");
    return { text: answer.content[0].text, usage: [usageOf(answer)] };
  },
  async stream() {
    const stream = client.messages.stream({ ...basic, messages: [{ role: "user", content: prompt("stream") }] });
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const usage = [usageOf(await stream.finalMessage())];
    return { text, usage };
  },
  async turns() {
    const messages = [
      { role: "user", content: "Say something." },
      { role: "assistant", content: "Something." },
      { role: "user", content: prompt("turns") },
    ];
    return { text: (await said("turns", { messages, system: "Be brief." })).content[0].text };
  },
  async tool() {
    const messages = [{ role: "user", content: prompt("tool") }];
    const asked = await said("tool", { messages, tools: [WEATHER] });
    const use = asked.content.at(-1);
    messages.push({ role: "assistant", content: asked.content });
    messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "dry" }] });
    const told = await said("tool", { messages, tools: [WEATHER] });
    return { input: use.input, text: told.content.at(-1).text };
  },
  async runner() {
    let input;
    const run = async (given) => {
      input = given;
      return "dry";
    };
    const tools = [{ type: "custom", ...WEATHER, run, parse: (given) => given }];
    const messages = [{ role: "user", content: prompt("runner") }];
    const final = await client.beta.messages.toolRunner({ ...basic, messages, tools });
    return { input, text: final.content.at(-1).text };
  },
  async image() {
    const source = { type: "base64", media_type: "image/png", data: TASK.image };
    const content = [
      { type: "image", source },
      { type: "text", text: prompt("image") },
    ];
    return { text: (await said("image", { messages: [{ role: "user", content }] })).content[0].text };
  },
  async thinking() {
    const answer = await said("thinking", { thinking: { type: "enabled", budget_tokens: 1024 } });
    const [first, second] = answer.content;
    return { thinking: Boolean(first.thinking && first.signature), text: second.text, usage: [usageOf(answer)] };
  },
  async cache() {
    const system = [{ type: "text", text: TASK.system, cache_control: { type: "ephemeral" } }];
    const usage = [];
    for (let time = 0; time < 2; time += 1) usage.push(usageOf(await said("cache", { system })));
    return { usage };
  },
  limit: () => refused("limit", TASK.limited_key),
  key: () => refused("key", WRONG_KEY),
  async cancel() {
    const stream = await said("cancel", { stream: true });
    let text = false;
    for await (const event of stream) {
      text = event.type === "content_block_delta";
      if (text) break; // ends the request
    }
    return { text };
  },
  async count() {
    const messages = [{ role: "user", content: prompt("count") }];
    const counted = await client.messages.countTokens({ model: TASK.model, messages, tools: [WEATHER] });
    return { counted: counted.input_tokens > 100 };
  },
  async models() {
    const one = await client.models.retrieve(TASK.model);
    const ids = [];
    for await (const model of client.models.list({ limit: 3 })) ids.push(model.id);
    return { listed: one.id === TASK.model && ids.includes(one.id) };
  },
});
