// Runs a client's scenarios and prints what each saw, as driver.py does.

export const TASK = JSON.parse(process.env.NAKA_TASK ?? "{}");

export const WEATHER = {
  name: "weather",
  description: "The weather of a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

export const WRONG_KEY = "nk_test_wrong";

export const prompt = (name) => TASK.prompts[name];

export async function run(scenarios) {
  const only = process.argv.slice(2);
  for (const name of only.length ? only : Object.keys(scenarios)) {
    let seen;
    try {
      seen = await scenarios[name]();
    } catch (error) {
      seen = { raised: `${error?.constructor?.name}: ${error?.message}` };
    }
    console.log(`{"scenario":${JSON.stringify(name)},${JSON.stringify(seen).slice(1)}`);
  }
}

export async function failureOf(ask) {
  try {
    await ask();
  } catch (error) {
    return { error: [error.constructor.name], status: error.status ?? error.statusCode ?? null, message: error.message };
  }
  return { error: [], message: "it was answered" };
}
