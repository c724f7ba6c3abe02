import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createMetrics } from "../../src/metrics.ts";
import { createModelParts, createModels, type Models } from "../../src/models.ts";
import type { ModelEndpointDefinition } from "../../src/parley-yaml.ts";
import { createFetchTransport } from "../../src/providers/fetch-transport.ts";
import { createModelRouter } from "../../src/providers/model-router.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { createUndiciTransport } from "../../src/providers/undici-transport.ts";
import { deadBaseUrl } from "./model-server.ts";
import { outcomeOf } from "./provider-calls.ts";

// All that is between a team and its models, wired as the service wires it.

let here: SimulatedModel;
let there: SimulatedModel;
beforeAll(async () => {
  [here, there] = await Promise.all([
    startSimulatedModel({ chunkDelayMs: 0 }),
    startSimulatedModel({ chunkDelayMs: 0 }),
  ]);
});
afterAll(async () => {
  await here.close();
  await there.close();
});

const BREAKER = { windowMs: 10_000, minCalls: 3, errorThresholdPercent: 50, resetMs: 60_000 };

describe("two endpoints", () => {
  test("the second is asked when the first fails, and no longer the first once its breaker has opened", async () => {
    const { models, metrics } = wired({ "gpt-4": [at(here, "sim-500"), at(there, "gpt-4")] });
    const [hereBefore, thereBefore] = [here.callCount, there.callCount];
    for (let call = 0; call < 5; call++) {
      const { reply, attempts } = await outcomeOf(models.model);
      expect(reply?.model).toBe("gpt-4");
      expect(attempts.map(({ model, outcome }) => [model, outcome])).toEqual([
        ...(call < BREAKER.minCalls ? [["sim-500", "failed"]] : []),
        ["gpt-4", "ok"],
      ]);
    }
    expect(here.callCount - hereBefore).toBe(BREAKER.minCalls);
    expect(there.callCount - thereBefore).toBe(5);
    const text = await metrics.render();
    expect(stateOf(text, here, "sim-500")).toBe("2");
    expect(stateOf(text, there, "gpt-4")).toBe("0");
  });

  test("the first is left alone when it refuses, and the failure is its own", async () => {
    const { models } = wired({ "gpt-4": [at(here, "sim-401"), at(there, "gpt-4")] });
    const before = there.callCount;
    expect((await outcomeOf(models.model)).failure?.reason).toBe("MODEL_REFUSED");
    expect(there.callCount).toBe(before);
  });

  test("a reply that breaks off midway goes to no other endpoint, and opens the breaker", async () => {
    const { models, metrics } = wired({ "gpt-4": [at(here, "sim-cut"), at(there, "gpt-4")] });
    const before = there.callCount;
    for (let call = 0; call < BREAKER.minCalls; call++) {
      const { failure, pieces } = await outcomeOf(models.model);
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      expect(pieces.length).toBeGreaterThan(0);
    }
    expect(there.callCount).toBe(before);
    expect(stateOf(await metrics.render(), here, "sim-cut")).toBe("2");
    expect((await outcomeOf(models.model)).reply?.model).toBe("gpt-4");
  });
});

test("each model at each endpoint has a breaker of its own", async () => {
  const { models, metrics } = wired({ broken: [at(here, "sim-500")], well: [at(here, "gpt-4")] });
  for (let call = 0; call < BREAKER.minCalls; call++) await outcomeOf(models.model, { model: "broken" });
  const before = here.callCount;
  expect((await outcomeOf(models.model, { model: "broken" })).attempts).toEqual([]);
  expect(here.callCount).toBe(before);
  expect((await outcomeOf(models.model, { model: "well" })).reply?.model).toBe("gpt-4");
  const text = await metrics.render();
  expect(stateOf(text, here, "sim-500")).toBe("2");
  expect(stateOf(text, here, "gpt-4")).toBe("0");
});

test("the provider's own books have a call for each attempt, with the same tokens", async () => {
  const { models } = wired({ "gpt-4": [at(here, "gpt-4")] });
  const before = here.callCount;
  const { attempts } = await outcomeOf(models.model);
  const call = here.calls.at(-1);
  expect(here.callCount).toBe(before + 1);
  expect(attempts).toHaveLength(1);
  expect(attempts[0]?.usage).toMatchObject({
    promptTokens: call?.promptTokens,
    completionTokens: call?.completionTokens,
  });
});

test("a probe succeeds when one endpoint answers", async () => {
  const dead = { ...at(here, "gpt-4"), baseUrl: await deadBaseUrl() };
  const { signal } = new AbortController();
  await expect(wired({ "gpt-4": [dead, at(there, "gpt-4")] }).models.probe(signal)).resolves.toBeUndefined();
  await expect(wired({ "gpt-4": [dead] }).models.probe(signal)).rejects.toThrow();
});

test("a model that nobody configured, such as one of a turn that another release began, is refused without a call", async () => {
  const { failure, attempts } = await outcomeOf(createModelRouter(new Map()), { model: "gpt-9" });
  expect(failure?.reason).toBe("MODEL_REFUSED");
  expect(attempts).toEqual([]);
});

test("calls go to the model that they name", async () => {
  const { models } = wired({ one: [at(here, "gpt-4")], two: [at(there, "gpt-4o")] });
  expect((await outcomeOf(models.model, { model: "two" })).reply?.model).toBe("gpt-4o");
  expect((await outcomeOf(models.model, { model: "one" })).reply?.model).toBe("gpt-4");
});

test("calls go over fetch as well", async () => {
  const { models } = wired({ "gpt-4": [at(here, "gpt-4")] }, createFetchTransport());
  expect((await outcomeOf(models.model)).reply?.text).toContain("Hello");
});

function at(server: SimulatedModel, model: string): ModelEndpointDefinition {
  const { baseUrl } = server;
  return { baseUrl, apiKey: "key", model, outputBound: "max_completion_tokens", idleTimeoutMs: 10_000 };
}

function wired(
  endpoints: Readonly<Record<string, [ModelEndpointDefinition, ...ModelEndpointDefinition[]]>>,
  transport = createUndiciTransport() as Parameters<typeof createModelParts>[0]["transport"] & {
    close?(): Promise<void>;
  },
): { models: Models; metrics: ReturnType<typeof createMetrics> } {
  const metrics = createMetrics({ version: "0", track: "stable", processMetrics: false });
  const logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => logger };
  const models = createModels({
    models: new Map(
      Object.entries(endpoints).map(([name, ends]) => [name, { name, contextWindowTokens: 8_192, endpoints: ends }]),
    ),
    parts: createModelParts({ config: { breaker: BREAKER }, transport, metrics, logger }),
  });
  onTestFinished(async () => {
    models.close();
    await transport.close?.();
  });
  return { models, metrics };
}

/** An endpoint's breaker as a scrape shows it. */
function stateOf(text: string, server: SimulatedModel, model: string): string | undefined {
  const { host } = new URL(server.baseUrl);
  const line = text
    .split("\n")
    .find((row) => row.startsWith(`parley_breaker_state{endpoint="${host}",model="${model}"`));
  return line?.split(" ").at(-1);
}
