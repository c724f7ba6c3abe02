import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { CHART, helm, render } from "../support/helm.ts";
import { kubeconform } from "../support/kubernetes-schemas.ts";
import { EXAMPLES, GOLDEN } from "./examples.ts";

test("the chart lints and renders with no value set", async () => {
  const lint = await helm("lint", "--strict", CHART);
  expect(lint, lint.stdout).toMatchObject({ exitCode: 0 });
  expect(await render()).toMatchObject({ exitCode: 0, stderr: "" });
});

describe.each(EXAMPLES)("$name", ({ file, golden }) => {
  test("lints", async () => {
    const lint = await helm("lint", "--strict", "--values", file, CHART);
    expect(lint, lint.stdout).toMatchObject({ exitCode: 0 });
  });

  test("renders as it did: node test/chart/update-golden.ts writes what it renders to", async () => {
    const { stdout, stderr } = await render({ files: [file] });
    expect(stderr).toBe("");
    expect(stdout).toBe(await readFile(golden, "utf8"));
  });
});

test("every object is one that Kubernetes and the custom resources know, without an unknown field", async () => {
  const { binary, args } = await kubeconform();
  const { stdout } = await promisify(execFile)(binary, [...args, GOLDEN]);
  const counts = /Valid: (\d+), Invalid: (\d+), Errors: (\d+), Skipped: (\d+)/.exec(stdout)?.slice(1).map(Number);
  expect(counts?.slice(1), stdout).toEqual([0, 0, 0]);
  expect(counts?.[0]).toBeGreaterThan(8 * EXAMPLES.length);
});

test("an unknown field is found: the check itself can fail", async () => {
  const { binary, args } = await kubeconform();
  const typo = (await readFile(join(GOLDEN, "canary-5.yaml"), "utf8")).replace("trafficPolicy:", "trafficPolice:");
  const child = promisify(execFile)(binary, [...args]);
  child.child.stdin?.end(typo);
  await expect(child).rejects.toMatchObject({ stdout: expect.stringContaining("trafficPolice") });
});

test("the release fits Helm's Secret of 1 MiB with room to spare", async () => {
  // The Secret holds manifest and chart, gzipped; plain and at half its size is on the safe side.
  const { stdout } = await render({ files: [join(CHART, "values-production.yaml")] });
  expect(Buffer.byteLength(stdout)).toBeLessThan(512 * 1024);
});
