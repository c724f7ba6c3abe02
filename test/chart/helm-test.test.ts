import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type Manifest, renderObjects } from "../support/helm.ts";
import { example } from "./examples.ts";

// The pod of `helm test` and a shadow's container, run as their pods would run them but for the ports.

const project = join(import.meta.dirname, "../..");
const PORTS = { HOST: "127.0.0.1", PORT: "0", OPS_PORT: "0", ALLOW_UNAUTHENTICATED: "false" };

/** Starts the canary's container of the example `mirror`, which needs nothing beside it; resolves to its URL. */
async function startShadow(set: Readonly<Record<string, string>> = {}): Promise<string> {
  const objects = await renderObjects({ files: [example("mirror")] });
  const canary = objects.find(({ kind, metadata }) => kind === "Deployment" && metadata.name === "parley-canary");
  const [container] = canary.spec.template.spec.containers;
  const child = spawn(process.execPath, container.args, {
    cwd: project,
    env: { PATH: process.env.PATH ?? "", ...environment(container), ...PORTS, ...set },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(async () => {
    // Its drain is not what is tested here.
    child.kill("SIGKILL");
    if (child.exitCode === null) await once(child, "exit");
  });
  let output = "";
  for await (const chunk of child.stdout) {
    output += String(chunk);
    const url = /is at (\S+)/.exec(output)?.[1];
    if (url !== undefined && /Try:/.test(output)) {
      child.stdout.resume();
      return url;
    }
  }
  throw new Error(`the shadow ended: ${output}`);
}

async function runTestPod(
  url: string,
  set: Readonly<Record<string, string>>,
): Promise<{ code: number; output: string }> {
  const objects = await renderObjects({ files: [example("canary-5")] });
  const [container] = objects.find(({ kind }) => kind === "Pod").spec.containers;
  const [, ...command] = container.command as string[];
  const child = spawn(process.execPath, [...command, ...container.args], {
    env: { ...environment(container), BASE_URL: url, ...set },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += String(chunk)));
  child.stderr.on("data", (chunk) => (output += String(chunk)));
  const [code] = (await once(child, "close")) as [number];
  return { code, output };
}

function environment(container: Manifest): Record<string, string> {
  return Object.fromEntries(container.env.map(({ name, value }: { name: string; value: string }) => [name, value]));
}

test("a turn on the track is found", async () => {
  const url = await startShadow();
  const { code, output } = await runTestPod(url, { TRACKS: "canary" });
  expect(output).toContain("ok: a streamed turn ran on canary");
  expect(code).toBe(0);
});

test("a track that serves nobody is told", async () => {
  const url = await startShadow({ RATE_LIMIT: "1000" });
  const { code, output } = await runTestPod(url, { TRACKS: "canary,stable" });
  expect(code).toBe(1);
  expect(output).toContain("30 turns, and none of them ran on stable");
});

test("a service that does not answer fails the test", async () => {
  const { code } = await runTestPod("http://127.0.0.1:1", { TRACKS: "stable" });
  expect(code).toBe(1);
});
