import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Code } from "@connectrpc/connect";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import deployed from "../../wrangler.json" with { type: "json" };
import { callerOf } from "../app/clients.ts";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { startWorker } from "./worker.ts";

// wrangler.json as wrangler itself reads it, up to the upload; what it would upload runs in workerd.

const project = join(import.meta.dirname, "../..");

let folder: string;
let output: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "parley-deploy-"));
  const { stdout, stderr } = await promisify(execFile)(
    join(project, "node_modules/.bin/wrangler"),
    ["deploy", "--dry-run", "--outdir", folder],
    { cwd: project, env: { ...process.env, CI: "true", NO_COLOR: "1", WRANGLER_SEND_METRICS: "false" } },
  );
  output = stdout + stderr;
  return () => rm(folder, { recursive: true, force: true });
});

/** The largest Worker that there may be without a plan that is paid for, in KiB after gzip: the platform's limits page. */
const MOST_KIB = 3_072;

test("wrangler takes it without a warning, and the upload is within the limits", async () => {
  expect(output).not.toMatch(/warning|error|unexpected/i);
  expect(output).toContain("--dry-run: exiting now.");
  expect((await readdir(folder)).filter((file) => file !== "README.md")).toEqual(["edge.js"]);
  const [, gzipKib = Number.NaN] = /gzip: ([\d.]+) KiB/.exec(output) ?? [];
  expect(Number(gzipKib)).toBeLessThan(MOST_KIB);
});

test("its variables and secrets are those of the configuration", async () => {
  const documented = await readFile(join(project, "docs/config.md"), "utf8");
  for (const name of [...Object.keys(deployed.vars), ...deployed.secrets.required]) {
    expect(documented).toContain(`| \`${name}\` |`);
  }
});

test("what it uploads runs with its variables, and lets nobody in without a key", async () => {
  const redis = await startRedisServer();
  onTestFinished(() => redis.stop());
  const secrets = Object.fromEntries(deployed.secrets.required.map((name) => [name, "sk-none"]));
  const worker = await startWorker({ folder }, { ...deployed.vars, ...secrets, REDIS_URL: redis.url });
  onTestFinished(() => worker.stop());
  const { chat } = callerOf(worker, threeWires[0]);
  const refusal = await refusalOf(chat.chat({ message: "hello" }));
  expectRefusal(refusal, { code: Code.Unauthenticated, reason: "CREDENTIALS_MISSING" });
});
