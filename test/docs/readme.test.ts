import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { UsageDimension, UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { eventually } from "../support/eventually.ts";
import { grpcurlPath } from "../support/grpcurl.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";

const root = join(import.meta.dirname, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const commands = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, command = ""]) => command.trim());

/** Commands that need a service; `make …` are the ones that start something. */
const calls = commands.filter((command) => !command.startsWith("make "));

const DAY_MS = 86_400_000;

/** A `make` target that serves until it is stopped. */
interface Served {
  readonly url: string;
  stop(): Promise<number | null>;
}

async function make(target: string, env: Record<string, string>): Promise<Served> {
  const child = spawn("make", [target], {
    cwd: root,
    env: { ...process.env, PORT: "0", OPS_PORT: "0", USAGE_PORT: "0", USAGE_OPS_PORT: "0", ...env },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const stop = (): Promise<number | null> => {
    // The whole group: make and what it runs.
    if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, "SIGTERM");
    return exited;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    const [url] = /http:\/\/[\w.]+:\d+/.exec(line) ?? [];
    if (url !== undefined) {
      child.stdout.resume();
      return { url, stop };
    }
  }
  throw new Error(`make ${target} ended with code ${await exited} before it served`);
}

let redis: RedisServer;
let model: SimulatedModel;
let run: Served;
beforeAll(async () => {
  redis = await startRedisServer();
  model = await startSimulatedModel();
  run = await make("run", {});
});
afterAll(async () => {
  await run?.stop();
  await model?.close();
  await redis?.stop();
});

test("the README's commands are those that these tests know", () => {
  expect(commands.filter((command) => command.startsWith("make "))).toEqual([
    "make run",
    "make demo-costs",
    "make serve",
    "make test",
  ]);
  expect(calls).toHaveLength(3);
});

test.each(calls)("%s", async (command) => {
  const grpcurl = await grpcurlPath();
  const { stdout } = await promisify(execFile)(
    "bash",
    ["-ec", command.replaceAll("localhost:8080", new URL(run.url).host)],
    {
      env: { ...process.env, PATH: `${dirname(grpcurl)}:${process.env.PATH}` },
    },
  );
  expect(stdout).toMatch(/You said: “(hello|what is my name\?)”/);
  if (command.includes("Ada")) expect(stdout.slice(stdout.lastIndexOf('{"sessionId"'))).toContain("my name is Ada");
});

test("make demo-costs prints the address of a Costs page, whose UsageService has the three teams' spending", async () => {
  const demo = await make("demo-costs", { DEMO_SECONDS: "3" });
  try {
    const usage = createClient(UsageService, createConnectTransport({ baseUrl: demo.url, httpVersion: "1.1" }));
    const endMs = Date.now() + DAY_MS;
    const { groups } = await usage.queryUsage({
      startTime: timestampFromMs(endMs - 2 * DAY_MS),
      endTime: timestampFromMs(endMs),
      groupBy: [UsageDimension.TEAM],
    });
    expect(groups.map(({ values }) => values[0]).sort()).toEqual(["editorial", "research", "support"]);
    expect(groups.every(({ costMicroUsd, unpricedTokens }) => costMicroUsd > 0n && unpricedTokens === 0n)).toBe(true);
    expect((await fetch(demo.url)).status).toBe(200);
  } finally {
    await demo.stop();
  }
});

test("make serve runs the production entry on REDIS_URL until it is told to stop", async () => {
  const service = await make("serve", { REDIS_URL: redis.url, OPENAI_BASE_URL: model.baseUrl });
  try {
    expect((await fetch(service.url)).status).toBe(200);
  } finally {
    await service.stop();
  }
  await eventually(() => expect(fetch(service.url)).rejects.toThrow());
});

test("links between the documents lead somewhere", () => {
  const documents = ["README.md", "CONTRIBUTING.md", "examples/README.md", "examples/teams/README.md"];
  const pages = ["clients", "config", "edge", "errors", "metrics", "teams", "testing", "from-autogen"];
  for (const document of [...documents, ...pages.map((page) => `docs/${page}.md`)]) {
    const text = readFileSync(join(root, document), "utf8");
    for (const [, link = ""] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      expect(existsSync(join(root, dirname(document), link)), `${document}: ${link}`).toBe(true);
    }
  }
});
