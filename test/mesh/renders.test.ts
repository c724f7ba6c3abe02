import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EXAMPLES } from "../chart/examples.ts";
import { objectsOf } from "../support/helm.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import type { Manifest } from "./kube-api.ts";
import { istioctl } from "./mesh-tools.ts";

// Every render of the examples, as the API server takes it and as Istio reads it.

let folder: string;
let cluster: Cluster;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "parley-renders-"));
  cluster = await startCluster(join(folder, "cluster"));
});
afterAll(async () => {
  await cluster?.stop();
  await rm(folder, { recursive: true, force: true });
});

async function rendered(golden: string): Promise<Manifest[]> {
  return objectsOf(await readFile(golden, "utf8"));
}

describe.each(EXAMPLES)("$name", ({ golden }) => {
  test("the API server takes every object of it by server-side apply", async () => {
    const objects = await rendered(golden);
    const taken: unknown[] = [];
    for (const object of objects) taken.push((await cluster.api.apply(object, { manager: "helm", dryRun: true })).kind);
    expect(taken).toEqual(objects.map(({ kind }) => kind));
    expect(taken.length).toBeGreaterThan(5);
  });

  test("istioctl finds nothing wrong with it, by validate and by analyze", async () => {
    const validated = await validate(golden);
    expect(validated.code, validated.stderr).toBe(0);
    const analyzed = await analyze(golden, ...(await gatewaysOf(golden)));
    expect(analyzed.code, analyzed.stdout).toBe(0);
  });
});

describe("the checks can fail", () => {
  const broken = async (from: string, to: string): Promise<string> => {
    const text = await readFile(EXAMPLES.find(({ name }) => name === "canary-5")?.golden ?? "", "utf8");
    expect(text).toContain(from);
    const file = join(folder, `${crypto.randomUUID()}.yaml`);
    await writeFile(file, text.replaceAll(from, to));
    return file;
  };

  test("the API server refuses an unknown field", async () => {
    const objects = await rendered(await broken("minReplicas:", "leastReplicas:"));
    const apply = async (): Promise<void> => {
      for (const object of objects) await cluster.api.apply(object, { manager: "helm", dryRun: true });
    };
    await expect(apply()).rejects.toThrow("leastReplicas");
  });

  test("validate refuses what is no duration", async () => {
    expect((await validate(await broken("baseEjectionTime: 30s", "baseEjectionTime: 30"))).code).not.toBe(0);
  });

  test("analyze refuses a subset that is not there", async () => {
    expect((await analyze(await broken('"subset":"canary"', '"subset":"kanary"'))).code).toBe(79);
  });
});

type Answer = { code: number; stdout: string; stderr: string };

async function run(...args: string[]): Promise<Answer> {
  return promisify(execFile)(await istioctl(), args).then(
    (output) => ({ code: 0, ...output }),
    (error: Answer) => error,
  );
}

const validate = (file: string): Promise<Answer> => run("validate", "-f", file);

/** Without a cluster: on what the file says alone. Without `-n` objects of other namespaces would be left out. */
const analyze = (...files: string[]): Promise<Answer> => run("analyze", "--use-kube=false", "-n", "chat", ...files);

/** Files with the gateways that a render's routes name: they are not the chart's. */
async function gatewaysOf(golden: string): Promise<string[]> {
  const routes = (await rendered(golden)).filter(({ kind }) => kind === "VirtualService");
  const names: string[] = routes.flatMap(({ spec }) => spec.gateways).filter((name: string) => name !== "mesh");
  return Promise.all(
    names.map(async (path) => {
      const [namespace, name] = path.split("/");
      const servers = [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }];
      const gateway = { selector: { istio: "ingress" }, servers };
      const file = join(folder, `${name}.json`);
      const object = {
        apiVersion: "networking.istio.io/v1",
        kind: "Gateway",
        metadata: { namespace, name },
        spec: gateway,
      };
      await writeFile(file, JSON.stringify(object));
      return file;
    }),
  );
}
