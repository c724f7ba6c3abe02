import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseGateFile } from "../../gate/conditions.ts";
import { CHART, helm, type Manifest, objectsOf, render, renderObjects } from "../support/helm.ts";
import { kubeconform } from "../support/kubernetes-schemas.ts";
import { example } from "./examples.ts";
import { env, ofKind, pods } from "./manifests.ts";

// Values that are allowed and that nobody thinks of: what they render to must be what Kubernetes takes.

describe.each([
  ["with dots", "a.very-long.release-name"],
  ["that begins with a digit", "1team"],
  ["of digits", "2024"],
  ["of 53 characters", "a-release-name-that-is-as-long-as-Helm-allows-it-to-be".toLowerCase().slice(0, 53)],
  ["of 53 characters, with parley in it", `parley-${"x".repeat(46)}`],
  ["that is cut at a dash", `${"x".repeat(48)}-zzzz`],
])("a release name %s", (_, release) => {
  test("makes names and labels that Kubernetes takes", async () => {
    const { exitCode, stdout, stderr } = await helm("template", release, CHART, "-f", example("canary-5"));
    expect(exitCode, stderr).toBe(0);
    const objects = objectsOf(stdout);
    for (const { kind, metadata } of objects) {
      expect(metadata.name, kind).toMatch(/^[a-z]([-a-z0-9]*[a-z0-9])?$/);
      // A Job's name is a label of its pods, a Service's one part of a host's name.
      expect(metadata.name.length, metadata.name).toBeLessThanOrEqual(63);
    }
    for (const { metadata, labels } of [...objects, ...pods(objects)] as Manifest[])
      for (const value of Object.values(metadata?.labels ?? labels)) expect(value).toBeTypeOf("string");
  });
});

test("labels of the release and of the pods may be the same: the pods' win", async () => {
  const [stable] = pods(await renderObjects({ set: ["commonLabels.team=chat", "podLabels.team=agents"] }));
  expect(stable?.labels.team).toBe("agents");
});

test("annotations of one's own replace those for the mesh", async () => {
  const objects = await renderObjects({ set: ["podAnnotations.sidecar\\.istio\\.io/nativeSidecar=false\\,"] });
  const annotations = ofKind(objects, "Deployment")[0]?.spec.template.metadata.annotations;
  expect(annotations["sidecar.istio.io/nativeSidecar"]).toBe("false,");
});

test("anomalies that the sidecar posts have the namespace that Prometheus gives to metrics", async () => {
  const [stable] = pods(await renderObjects({ set: ["sidecar.alertmanagerUrl=http://alertmanager:9093"] }));
  expect(env(stable?.spec.initContainers[0], "ALERT_NAMESPACE")?.value).toBe("chat");
});

test("the mesh's proxy outlives the sidecar, and lets the test's pod end", async () => {
  const objects = await renderObjects();
  const annotated = [ofKind(objects, "Deployment")[0]?.spec.template, ofKind(objects, "Pod")[0]];
  expect(annotated.map((one) => one.metadata.annotations["sidecar.istio.io/nativeSidecar"])).toEqual(["true", "true"]);
});

test.each([
  ["v1.2.3_", "v1.2.3"],
  ["_nightly", "nightly"],
  [`${"x".repeat(62)}-tail`, "x".repeat(62)],
])("the image tag %s makes a version that is a label", async (tag, version) => {
  const [stable] = pods(await renderObjects({ set: [`image.tag=${tag}`] }));
  expect(stable?.labels["app.kubernetes.io/version"]).toBe(version);
});

test("names of Secrets that look like numbers stay names", async () => {
  const folder = await mkdtemp(join(tmpdir(), "values-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "values.yaml");
  const numbers = { existingSecret: "2024", existingSecretKey: "1e3" };
  await writeFile(
    file,
    JSON.stringify({
      redis: numbers,
      model: numbers,
      test: numbers,
      serviceAccount: { name: "12" },
      priorityClassName: "1",
    }),
  );
  const { stdout } = await render({ files: [file] });
  const references = [...stdout.matchAll(/secretKeyRef: (\{.*?\})/g)].map(([, one]) => one);
  expect(references.length).toBeGreaterThan(3);
  expect(new Set(references)).toEqual(new Set([`{ name: "2024", key: "1e3" }`]));
  const { binary, args } = await kubeconform();
  const checking = promisify(execFile)(binary, args);
  checking.child.stdin?.end(stdout);
  expect((await checking).stdout).toContain("Invalid: 0, Errors: 0, Skipped: 0");
});

test.each([["cpu=1"], ["cpu=1.5"], ["memory=2000000000"], ["memory=1.5Gi"], ["ephemeral-storage=1Ti"]])(
  "resources may be %s, and become what Kubernetes takes",
  async (given) => {
    const { exitCode, stdout, stderr } = await helm("template", "parley", CHART, "--set-json", jsonOf(given));
    expect(exitCode, stderr).toBe(0);
    const { binary, args } = await kubeconform();
    const checking = promisify(execFile)(binary, args);
    checking.child.stdin?.end(stdout);
    expect((await checking).stdout).toContain("Invalid: 0, Errors: 0, Skipped: 0");
  },
);

/** `cpu=1` as Helm takes a value of a limit by its type. */
function jsonOf(given: string): string {
  const [name = "", value = ""] = given.split("=");
  return `resources.limits.${name}=${JSON.stringify(Number.isNaN(Number(value)) ? value : Number(value))}`;
}

test.each(["cpu", "keda"])("pods go slowly, and no slower than Kubernetes knows, with kind %s", async (kind) => {
  const set = [`autoscaling.kind=${kind}`, "autoscaling.keda.serverAddress=http://prometheus"];
  const period = async (seconds: number): Promise<number> => {
    const objects = await renderObjects({ set: [...set, `drain.maxTurnSeconds=${seconds}`] });
    const [scaler] = [...ofKind(objects, "HorizontalPodAutoscaler"), ...ofKind(objects, "ScaledObject")];
    const behavior = scaler.spec.behavior ?? scaler.spec.advanced.horizontalPodAutoscalerConfig.behavior;
    return behavior.scaleDown.policies[0].periodSeconds;
  };
  expect([await period(0), await period(600), await period(86_400)]).toEqual([60, 653, 1_800]);
});

describe("the NetworkPolicy lets out", () => {
  const portsOf = async (set: readonly string[]): Promise<number[] | undefined> => {
    const [policy] = ofKind(await renderObjects({ set: ["networkPolicy.egressPorts=null", ...set] }), "NetworkPolicy");
    const world = policy.spec.egress.find((rule: Manifest) => rule.to?.[0]?.ipBlock !== undefined);
    return world?.ports?.map(({ port }: Manifest) => port);
  };

  test.each([
    ["the standard port", ["redis.url=redis://redis"], [6379]],
    ["one of each node", ["redis.url=redis://a:7000\\,redis://b:7001/0"], [7000, 7001]],
    ["no part of a path", ["model.baseUrl=https://llm/v1:99/x"], [6379, 443]],
    ["with a query", ["model.baseUrl=http://llm:8000?x=1"], [6379, 8000]],
    ["of an IPv6 address", ["otlpEndpoint=http://[fd00::1]:4318"], [6379, 4318]],
    ["without one, of plain HTTP", ["sidecar.alertmanagerUrl=http://alertmanager"], [6379, 80]],
  ])("a URL's port: %s", async (_, set, ports) => {
    expect(await portsOf(set)).toEqual(ports);
  });

  test("nothing, not everything, where no port is named", async () => {
    const set = ["redis.url=", "redis.existingSecret=redis"];
    expect(await portsOf(set)).toBeUndefined();
    const [policy] = ofKind(await renderObjects({ set: ["networkPolicy.egressPorts=null", ...set] }), "NetworkPolicy");
    for (const rule of policy.spec.egress) expect(rule.ports).not.toHaveLength(0);
  });
});

test.each([
  ["", []],
  ["of hours", ["canary.analysis.window=2h", "canary.analysis.errorRatioFactor=2"]],
  ["without a sidecar", ["sidecar.enabled=false"]],
])("the gate reads the file that the chart writes %s", async (_, set) => {
  const [map] = ofKind(await renderObjects({ files: [example("canary-5")], set }), "ConfigMap");
  expect(parseGateFile(map?.data["gate.yaml"]).tracks.canary).toBe('track="canary",version="99.0.0"');
});
