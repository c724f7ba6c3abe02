import { once } from "node:events";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { BudgetPeriod } from "../../gen/parley/usage/v1/budget_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { loadSidecarConfig } from "../../sidecar/config.ts";
import { ConfigError } from "../../src/platform/environment.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { spawnSidecar, startSidecarProcess } from "../support/sidecar-process.ts";

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer({ appendOnly: true });
});
afterAll(() => redis.stop());

test("the sidecar serves as its own process on Redis, says when it is ready, and stops when it is told to", async () => {
  const { child, url, opsUrl } = await startSidecarProcess({ REDIS_URL: redis.url });
  await vi.waitFor(async () => expect((await fetch(`${opsUrl}/readyz`)).status).toBe(200), { timeout: 10_000 });
  const usage = createClient(UsageService, createGrpcTransport({ baseUrl: url }));
  expect((await usage.listBudgets({})).budgets).toEqual([]);
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([0, null]);
});

test("with REDIS_DURABILITY=replica a budget that no replica has is not set, as far as its caller is told", async () => {
  const { child, url } = await startSidecarProcess({ REDIS_URL: redis.url, REDIS_DURABILITY: "replica" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const usage = createClient(UsageService, createGrpcTransport({ baseUrl: url }));
  const scope = { scope: { case: "user" as const, value: "ann" } };
  const setting = usage.setBudget({ scope, period: BudgetPeriod.HOUR, limitMicroUsd: 1n });
  const error = await setting.catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: Code.Unavailable });
});

test("the sidecar without Redis says what it needs", async () => {
  const child = spawnSidecar({});
  let problem = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    problem += String(chunk);
  });
  expect(await once(child, "close")).toEqual([2, null]);
  expect(problem).toContain("REDIS_URL: must be set");
});

describe("the sidecar's configuration", () => {
  const load = (env: Record<string, string>, yaml = "") =>
    loadSidecarConfig(env, { readFile: (path) => (path === "parley.yaml" ? yaml : fail()), packageVersion: "1.2.3" });

  test("has the defaults of the documentation", () => {
    expect(load({ REDIS_URL: "redis://r" })).toMatchObject({
      host: "127.0.0.1",
      port: 8081,
      opsPort: 9091,
      auth: { mode: "none" },
      models: ["gpt-4"],
      version: "1.2.3",
    });
  });

  test("tells every problem at once, those of the file too", () => {
    const env = { USAGE_PORT: "x", AUTH_MODE: "jwt", TLS_KEY: "k", CONFIG_FILE: "parley.yaml" };
    const yaml = "budgets:\n  - scope: user\n";
    const problems = (() => {
      try {
        load(env, yaml);
      } catch (error) {
        if (error instanceof ConfigError) return error.problems;
      }
      return [];
    })();
    expect(problems.map((problem) => problem.split(": ")[0])).toEqual([
      "USAGE_PORT",
      "REDIS_URL",
      "JWT_ISSUER",
      "JWT_AUDIENCE",
      "JWKS_URL",
      "TLS_KEY",
      "parley.yaml",
    ]);
  });

  test("knows the models of the file, and lets the service check the rest of it", () => {
    const yaml = "agents:\n  a: { model: gpt-4o, anything: 1 }\nmodels:\n  mine: { endpoints: [] }\n";
    expect(load({ REDIS_URL: "redis://r", CONFIG_FILE: "parley.yaml" }, yaml).models).toEqual([
      "mine",
      "gpt-4o",
      "gpt-4",
    ]);
  });
});

function fail(): never {
  throw new Error("ENOENT");
}
