import { describe, expect, test } from "vitest";
import { EXAMPLES, example } from "./examples.ts";
import { rendered, violations } from "./rendered.ts";

describe("holds for", () => {
  test.each(EXAMPLES)("$name", async ({ file }) => {
    expect(violations(await rendered({ files: [file] }))).toEqual([]);
  });

  const canary = example("canary-5");
  test.each([
    ["no sidecar", [], ["sidecar.enabled=false"]],
    ["no autoscaler", [], ["autoscaling.enabled=false", "stable.replicas=4"]],
    ["turns that scale", [], ["autoscaling.kind=turns"]],
    ["a long drain", [canary], ["drain.maxTurnSeconds=600", "drain.sidecarFlushSeconds=30"]],
    ["a grace period of one's own", [], ["drain.terminationGracePeriodSeconds=1000"]],
    ["half the traffic", [canary], ["canary.weight=50"]],
    ["all the traffic", [canary], ["canary.weight=100", "canary.replicas=4"]],
    ["an abort: weight 0, preview off", [canary], ["canary.weight=0", "canary.preview.enabled=false"]],
    ["all the traffic and no affinity", [canary], ["canary.weight=100", "traffic.affinity.enabled=false"]],
    ["a canary without a sidecar", [canary], ["sidecar.enabled=false"]],
    ["a drain of two hours", [], ["drain.maxTurnSeconds=7200"]],
    ["no affinity", [canary], ["traffic.affinity.enabled=false"]],
    ["no retries at all", [canary], ["traffic.retries.attempts=0"]],
    ["no outlier detection", [], ["traffic.outlierDetection.enabled=false"]],
    ["no budgets", [canary], ["pdb.enabled=false"]],
    ["no test", [canary], ["test.enabled=false"]],
  ])("%s", async (_, files, set) => {
    expect(violations(await rendered({ files, set }))).toEqual([]);
  });
});

test("an aborted canary gets no old sessions either", async () => {
  const { objects } = await rendered({
    files: [example("canary-5")],
    set: ["canary.weight=0", "canary.preview.enabled=false"],
  });
  const routing = objects.filter(({ kind }) => kind === "VirtualService");
  expect(routing[0].spec.http.map((route: { name: string }) => route.name)).toEqual(["usage", "ops", "reads", "turns"]);
  expect(objects.filter(({ kind }) => kind === "Deployment")).toHaveLength(2);
});

test("routes stay when another controller takes them over", async () => {
  const { objects } = await rendered({ files: [example("canary-5")] });
  const kept = objects.filter((object) => object.metadata.annotations?.["helm.sh/resource-policy"] === "keep");
  expect(kept.map(({ kind }) => kind).toSorted()).toEqual(["DestinationRule", "VirtualService"]);
});
