// Vercel's AI SDK with its Anthropic provider.

import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

import { failureOf, prompt, run, TASK, WEATHER, WRONG_KEY } from "./driver.mjs";

const anthropic = createAnthropic({ baseURL: `${TASK.url}/v1`, apiKey: TASK.key });
const basic = { model: anthropic(TASK.model), maxOutputTokens: 3000 };
const usageOf = ({ usage }) => {
  const { noCacheTokens, cacheReadTokens, cacheWriteTokens } = usage.inputTokenDetails ?? {};
  return [noCacheTokens ?? usage.inputTokens, usage.outputTokens, cacheReadTokens ?? 0, cacheWriteTokens ?? 0];
};

const refused = (name, apiKey) => {
  const other = createAnthropic({ baseURL: `${TASK.url}/v1`, apiKey });
  return failureOf(() => generateText({ ...basic, model: other(TASK.model), prompt: prompt(name) }));
};

await run({
  async text() {
    const answer = await generateText({ ...basic, prompt: prompt("text") });
    return { text: answer.text, usage: [usageOf(answer)] };
  },
  async stream() {
    const answer = streamText({ ...basic, prompt: prompt("stream") });
    let text = "";
    for await (const piece of answer.textStream) text += piece;
    return { text, usage: [usageOf({ usage: await answer.usage })] };
  },
  async turns() {
    const messages = [
      { role: "user", content: "Say something." },
      { role: "assistant", content: "Something." },
      { role: "user", content: prompt("turns") },
    ];
    return { text: (await generateText({ ...basic, messages })).text };
  },
  async tool() {
    let input;
    const weather = tool({
      description: WEATHER.description,
      inputSchema: jsonSchema(WEATHER.input_schema),
      execute: async (given) => {
        input = given;
        return "dry";
      },
    });
    const stopWhen = stepCountIs(3);
    const answer = await generateText({ ...basic, prompt: prompt("tool"), tools: { weather }, stopWhen });
    return { input, text: answer.text };
  },
  async image() {
    const content = [
      { type: "file", mediaType: "image/png", data: TASK.image },
      { type: "text", text: prompt("image") },
    ];
    return { text: (await generateText({ ...basic, messages: [{ role: "user", content }] })).text };
  },
  async thinking() {
    const providerOptions = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };
    const answer = await generateText({ ...basic, prompt: prompt("thinking"), providerOptions });
    return { thinking: Boolean(answer.reasoningText), text: answer.text, usage: [usageOf(answer)] };
  },
  async cache() {
    const cached = { anthropic: { cacheControl: { type: "ephemeral" } } };
    const content = [
      { type: "text", text: TASK.system, providerOptions: cached },
      { type: "text", text: prompt("cache") },
    ];
    const usage = [];
    for (let time = 0; time < 2; time += 1) {
      usage.push(usageOf(await generateText({ ...basic, messages: [{ role: "user", content }] })));
    }
    return { usage };
  },
  limit: () => refused("limit", TASK.limited_key),
  key: () => refused("key", WRONG_KEY),
  async cancel() {
    const leaving = new AbortController();
    const answer = streamText({ ...basic, prompt: prompt("cancel"), abortSignal: leaving.signal, onError() {} });
    let text = false;
    for await (const piece of answer.textStream) {
      text ||= Boolean(piece);
      leaving.abort();
    }
    return { text };
  },
});
