import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CHART } from "../support/helm.ts";
import { checkEjection, checkPreview, checkRestart, checkSplit } from "./checks.ts";
import type { Manifest } from "./kube-api.ts";
import { type Mesh, startMesh } from "./mesh.ts";

// The chart broken on purpose: each check of a release must find what it is for.

interface Mutant {
  readonly name: string;
  /** File under templates/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  readonly check: (mesh: Mesh) => Promise<unknown>;
}

const split = (mesh: Mesh): Promise<void> => checkSplit(mesh, { percent: 10, turns: 200 });
const restart = (mesh: Mesh): Promise<void> =>
  checkRestart(mesh, () =>
    mesh.api.mergePatch(
      "/apis/apps/v1/namespaces/chat/deployments/parley-stable",
      { spec: { template: { metadata: { annotations: { restartedAt: new Date().toISOString() } } } } },
      "kubectl-rollout",
    ),
  );

const MUTANTS: readonly Mutant[] = [
  {
    name: "swapped weights",
    file: "virtualservice.yaml",
    from: `"destination" $stable "weight" (sub 100 $weight)) (dict "destination" $toCanary "weight" $weight)`,
    to: `"destination" $stable "weight" $weight) (dict "destination" $toCanary "weight" (sub 100 $weight))`,
    check: split,
  },
  {
    name: "a subset with another label",
    file: "destinationrule.yaml",
    from: "labels: { track: canary }",
    to: "labels: { track: kanary }",
    check: split,
  },
  {
    name: "canary pods labelled as stable",
    file: "_pod.tpl",
    from: "- { name: TRACK, value: {{ .track }} }",
    to: "- { name: TRACK, value: stable }",
    check: split,
  },
  {
    name: "a route to a wrong port",
    file: "virtualservice.yaml",
    from: `"subset" "canary" "port" (dict "number" 8080)`,
    to: `"subset" "canary" "port" (dict "number" 8088)`,
    check: split,
  },
  {
    name: "no preview route",
    file: "virtualservice.yaml",
    from: `{{- if include "parley.preview" . }}`,
    to: "{{- if false }}",
    check: checkPreview,
  },
  {
    name: "no outlier detection",
    file: "destinationrule.yaml",
    from: "{{- if $traffic.outlierDetection.enabled }}",
    to: "{{- if false }}",
    check: checkEjection,
  },
  {
    name: "no preStop",
    file: "_pod.tpl",
    from: "          sleep: { seconds: {{ int $values.drain.preStopSeconds }} }",
    to: "          sleep: { seconds: 0 }",
    check: restart,
  },
];

let mesh: Mesh;
beforeAll(async () => {
  mesh = await startMesh();
});
afterAll(() => mesh?.stop());

function valuesFor({ check }: Pick<Mutant, "check">): Manifest {
  if (check === restart || check === checkEjection) return {};
  return { canary: { enabled: true, image: { tag: "0.6.0" }, weight: check === split ? 10 : 0 } };
}

test.each([
  { name: "split", check: split },
  { name: "preview", check: checkPreview },
  { name: "ejection", check: checkEjection },
])("the whole chart passes the check of its $name", async ({ check }) => {
  const { code, stderr } = await mesh.upgrade(valuesFor({ check }));
  expect(code, stderr).toBe(0);
  await mesh.routed();
  await check(mesh);
});

test.each(MUTANTS)("$name is found", async ({ name, file, from, to, check }) => {
  const chart = join(mesh.folder, name.replaceAll(" ", "-"));
  await cp(CHART, chart, { recursive: true });
  const path = join(chart, "templates", file);
  const text = await readFile(path, "utf8");
  expect(text).toContain(from);
  await writeFile(
    path,
    text.replace(from, () => to),
  );
  const release = async (): Promise<void> => {
    const { code, stderr } = await mesh.upgrade(valuesFor({ check }), { chart });
    if (code !== 0) throw new Error(stderr);
    await mesh.routed();
    await check(mesh);
  };
  await expect(release()).rejects.toThrow();
});
