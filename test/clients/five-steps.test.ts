import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePorts, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { getReady, runExample } from "./example.ts";

// Every example is run by the commands that its README tells a newcomer, against one service, and all see the same.

/** Clients of each folder of `examples`. */
const examples = {
  go: ["grpc-go", "connect-go"],
  python: ["grpcio"],
  java: ["grpc-java"],
  rust: ["tonic"],
  node: ["connect-node"],
  browser: ["connect-web", "connect-web with gRPC-Web"],
  curl: ["curl"],
} as const;

const REPLY = "You said: “Grüße aus Köln 🦜”. I am a simulated model: I repeat what I am told.";
const FINISHED = { text: REPLY, finish_reason: "FINISH_REASON_STOP", without_gap: true };

let redis: RedisServer;
let parley: ServiceProcess;
let pagePort: number;

beforeAll(async () => {
  redis = await startRedisServer({ appendOnly: true });
  [pagePort = 0] = await freePorts(1);
  parley = await startServiceProcess({
    // As `RATE_LIMIT=5 make run` does, which the READMEs begin with.
    entry: "standalone/main.ts",
    env: { REDIS_URL: redis.url, RATE_LIMIT: "5", CORS_ORIGINS: `http://localhost:${pagePort}` },
  });
});
afterAll(async () => {
  await parley?.stop();
  await redis?.stop();
});

test("every folder of examples is among them, but for the teams", () => {
  const entries = readdirSync(join(import.meta.dirname, "../../examples"), { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  expect(folders.sort()).toEqual([...Object.keys(examples), "teams"].sort());
});

describe.each(Object.entries(examples))("examples/%s", (folder, clients) => {
  beforeAll(() => getReady(folder));

  test("sees what every client sees", async () => {
    const seen = await runExample(folder, { PARLEY_URL: parley.url, PAGE_PORT: String(pagePort) });
    for (const client of clients) {
      const steps = seen.filter((line) => line.client === client);
      expect(steps).toEqual(
        [
          {
            step: "chat",
            saw: {
              response: REPLY,
              finish_reason: "FINISH_REASON_STOP",
              total_tokens: 61,
              cost_micro_usd: 2_640,
            },
          },
          {
            step: "stream",
            saw: {
              ...FINISHED,
              kinds: [
                "turn_started",
                "agent_started",
                "text_delta",
                "message_completed",
                "usage_recorded",
                "turn_completed",
              ],
            },
          },
          {
            step: "resume",
            saw: { ...FINISHED, dropped_after: expect.any(Number), last_sequence: expect.any(Number) },
          },
          { step: "retry", saw: { same_turn: true, response: REPLY } },
          {
            step: "refusal",
            saw: {
              code: "RESOURCE_EXHAUSTED",
              reason: "RATE_LIMITED",
              // Of five: the retry was no turn of its own, and neither was the resume.
              admitted: 1,
              quota: ["5 turns per 3600 seconds"],
              retry_after_s: expect.any(Number),
            },
          },
        ].map((line) => ({ client, ...line })),
      );
      const { dropped_after: droppedAfter, last_sequence: lastSequence } = steps[2]?.saw ?? {};
      expect(Number(droppedAfter)).toBeGreaterThan(0);
      expect(Number(droppedAfter)).toBeLessThan(Number(lastSequence));
      expect(Number(steps[4]?.saw.retry_after_s)).toBeGreaterThan(0);
      expect(Number(steps[4]?.saw.retry_after_s)).toBeLessThanOrEqual(3_600);
    }
    expect(seen).toHaveLength(5 * clients.length);
  });
});
