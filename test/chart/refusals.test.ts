import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageVersion } from "../../src/package-facts.ts";
import { CHART, type Manifest, render, renderObjects } from "../support/helm.ts";
import { containers, pods } from "./manifests.ts";

/** What the chart deploys where nothing else is said. */
const VERSION = packageVersion();

/** Values that cannot work together, and how the sentence begins. */
const REFUSED: readonly (readonly [string, readonly string[], string])[] = [
  ["weight without canary", ["canary.weight=5"], "canary.weight is 5, but canary.enabled is false"],
  [
    "owner and weight",
    ["canary.enabled=true", "canary.owner=flagger", "canary.weight=5", "canary.image.tag=99.0.0"],
    "canary.owner is flagger and canary.weight is 5: only one may write weights",
  ],
  ["mirror without canary", ["canary.mirror.percent=5"], "canary.mirror.percent is 5, but canary.enabled is false"],
  [
    "mirror with another owner",
    ["canary.enabled=true", "canary.owner=argo", "canary.mirror.percent=5", "canary.shadow.safe=true"],
    "canary.owner is argo and canary.mirror.percent is 5",
  ],
  ["an owner of no canary", ["canary.owner=flagger"], "canary.owner is flagger, but canary.enabled is false"],
  [
    "two writers of replicas",
    ["canary.enabled=true", "canary.owner=argo", "autoscaling.enabled=false"],
    "canary.owner is argo and autoscaling.enabled is false",
  ],
  [
    "a canary that callers in the mesh reach by chance",
    ["canary.enabled=true", "istio.gateways[0]=edge/public"],
    "canary.enabled is true and istio.gateways lacks mesh",
  ],
  [
    "mirror without safe shadows",
    ["canary.enabled=true", "canary.image.tag=99.0.0", "canary.mirror.percent=5"],
    "canary.mirror.percent is above 0 and canary.shadow.safe is false: every mirrored turn would be paid for and written twice",
  ],
  [
    "shadows that answer people",
    ["canary.enabled=true", "canary.image.tag=99.0.0", "canary.shadow.safe=true", "canary.weight=5"],
    "canary.shadow.safe is true and canary.weight is 5",
  ],
  [
    "a canary without a mesh",
    ["canary.enabled=true", "canary.image.tag=99.0.0", "istio.enabled=false"],
    "canary.enabled is true and istio.enabled is false",
  ],
  [
    "one image on both tracks",
    ["canary.enabled=true", "canary.weight=5", "canary.version=99.0.0"],
    `canary.weight is 5 and both tracks run parley:${VERSION}`,
  ],
  [
    "one image on both tracks, named in two ways",
    ["canary.enabled=true", "canary.weight=5", "canary.version=99.0.0", `canary.image=parley:${VERSION}`],
    `canary.weight is 5 and both tracks run parley:${VERSION}`,
  ],
  [
    "one version on both tracks",
    ["canary.enabled=true", "canary.weight=5", "canary.image.repository=other/parley"],
    `canary.weight is 5 and both tracks call themselves ${VERSION}`,
  ],
  [
    "a weight for no pods",
    ["canary.enabled=true", "canary.weight=5", "canary.image.tag=99.0.0", "canary.replicas=0"],
    "canary.weight is 5 and canary.replicas is 0",
  ],
  [
    "a grace period too small",
    ["drain.terminationGracePeriodSeconds=172"],
    "drain.terminationGracePeriodSeconds is 172, but preStop, turns, streams and sidecar need 173",
  ],
  [
    "an autoscaler upside down",
    ["autoscaling.minReplicas=11"],
    "autoscaling.minReplicas is 11 and autoscaling.maxReplicas is 10",
  ],
  ["KEDA without Prometheus", ["autoscaling.kind=keda"], "autoscaling.kind is keda and autoscaling.keda.serverAddress"],
  ["an empty disruption budget", ["pdb.maxUnavailable=null"], "pdb.enabled is true, and neither"],
  ["two disruption budgets", ["pdb.minAvailable=1"], "pdb.maxUnavailable is 1 and pdb.minAvailable is 1"],
  ["a budget that lets none go", ["pdb.maxUnavailable=0"], "pdb.maxUnavailable is 0: no pod could ever be evicted"],
  [
    "a budget that lets no per cent go",
    ["pdb.maxUnavailable=0%"],
    "pdb.maxUnavailable is 0%: no pod could ever be evicted",
  ],
  [
    "a budget that keeps all pods of the autoscaler's least",
    ["pdb.maxUnavailable=null", "pdb.minAvailable=2"],
    "pdb.minAvailable is 2, and the stable track may have no more than 2 pods",
  ],
  [
    "a budget that keeps all pods when rounded up",
    ["pdb.maxUnavailable=null", "pdb.minAvailable=51%"],
    "pdb.minAvailable is 51%, and the stable track may have no more than 2 pods",
  ],
  [
    "a budget that keeps the only canary",
    ["pdb.maxUnavailable=null", "pdb.minAvailable=1", "canary.enabled=true", "canary.image.tag=99.0.0"],
    "pdb.minAvailable is 1, and the canary track may have no more than 1 pods",
  ],
  ["an open door by accident", ["auth.mode=none"], "auth.mode is none: everybody who reaches the port may spend"],
  ["tokens of nobody", ["auth.mode=jwt", "auth.jwt.issuer=x"], "auth.mode is jwt and auth.jwt.audience is empty"],
  ["a password in plain", ["redis.url=redis://:hunter2@redis:6379"], "redis.url holds a password"],
  ["a password with a slash", ["redis.url=redis://:hunter2/x@redis:6379"], "redis.url holds a password"],
  ["a password behind the address", ["redis.url=redis://redis:6379/0?password=hunter2"], "redis.url holds a password"],
  [
    "a password for the traces",
    ["otlpEndpoint=http://user:hunter2@otel:4318"],
    "otlpEndpoint holds a user or a password",
  ],
  ["a password for the model", ["model.baseUrl=https://hunter2@llm/v1"], "model.baseUrl holds a user or a password"],
  ["no Redis", ["redis.url="], "redis.url and redis.existingSecret are both empty"],
  [
    "a key in plain",
    ["extraEnv[0].name=SECOND_API_KEY", "extraEnv[0].value=hunter2"],
    "extraEnv has SECOND_API_KEY with a value in plain",
  ],
  [
    "a key in plain for the sidecar",
    ["sidecar.extraEnv[0].name=WEBHOOK_TOKEN", "sidecar.extraEnv[0].value=hunter2"],
    "sidecar.extraEnv has WEBHOOK_TOKEN with a value in plain",
  ],
  [
    "a variable of the chart's own",
    ["extraEnv[0].name=DRAIN_MS", "extraEnv[0].value=soon"],
    "extraEnv sets DRAIN_MS, which the chart sets from other values",
  ],
  [
    "a variable twice",
    ["sidecar.extraEnv[0].name=A", "sidecar.extraEnv[0].value=one", "sidecar.extraEnv[1].name=A"],
    "sidecar.extraEnv has A twice",
  ],
  ["a label that selects", ["podLabels.track=blue"], "podLabels sets track, by which the chart knows its own"],
  [
    "a label that names",
    ["commonLabels.app\\.kubernetes\\.io/name=chat"],
    "commonLabels sets app.kubernetes.io/name, by which the chart knows its own",
  ],
  [
    "alerts of a sidecar that is off",
    ["monitoring.rules.enabled=true", "sidecar.enabled=false"],
    "monitoring.rules.enabled is true and sidecar.enabled is false",
  ],
  ["routes for nobody", ["istio.gateways=null"], "istio.gateways is empty"],
];

test.each(REFUSED)("%s", async (_, set, sentence) => {
  const { exitCode, stderr } = await render({ set });
  expect(exitCode).not.toBe(0);
  expect(stderr).toContain(sentence);
  expect(stderr).not.toContain("hunter2");
  // It says what to do, not only what is wrong.
  expect(stderr).toMatch(/\b(Set|Swap|Put|Take)\b/);
});

test("each variable that the chart sets is refused among those of one's own", async () => {
  const optional = ["auth.mode=jwt", "auth.jwt.issuer=i", "auth.jwt.audience=a", "auth.jwt.jwksUrl=https://i/keys"];
  const set = [
    ...optional,
    "config=x: 1",
    "corsOrigins[0]=https://app.example.com",
    "otlpEndpoint=http://otel:4318",
    "model.baseUrl=http://llm",
    "model.existingSecret=s",
    "sidecar.alertmanagerUrl=http://alertmanager",
    "state.writeSchema=1",
  ];
  const objects = [
    ...(await renderObjects({ set })),
    ...(await renderObjects({ set: ["auth.mode=none", "auth.allowUnauthenticated=true"] })),
  ];
  const of = pods(objects).flatMap(({ spec }) => containers(spec));
  const names = [...new Set(of.flatMap(({ env }) => env.map((one: Manifest) => one.name as string)))];
  expect(names.length).toBeGreaterThan(25);
  const refused = await Promise.all(
    names.map(async (name) => (await render({ set: [`extraEnv[0].name=${name}`] })).stderr),
  );
  expect(names.filter((name, at) => !refused[at]?.includes(`extraEnv sets ${name}, which the chart sets`))).toEqual([]);
});

test("each sentence of the checks has its case", async () => {
  const checks = await readFile(join(CHART, "templates/_checks.tpl"), "utf8");
  const sentences = [...checks.matchAll(/\bfail \(?(?:printf )?"((?:[^"\\]|\\.)*)"/g)].map(([, text = ""]) => text);
  expect(sentences.length).toBeGreaterThan(20);
  const stderr = await Promise.all(REFUSED.map(async ([, set]) => (await render({ set })).stderr));
  const pattern = (text: string): RegExp =>
    new RegExp(
      text
        .split(/%[dsv]/)
        .map((part) => RegExp.escape(part))
        .join(".+?"),
    );
  expect(sentences.filter((text) => !stderr.some((said) => pattern(text).test(said)))).toEqual([]);
});

/** Values that the schema refuses, and what it names. */
const UNKNOWN: readonly (readonly [string, string])[] = [
  ["replicas=3", "replicas"],
  ["stable.replica=3", "replica"],
  ["canary.wieght=3", "wieght"],
  ["canary.preview.headers=x", "headers"],
  ["istio.host=x", "host"],
  ["monitoring.rule.enabled=true", "rule"],
  ["canary.weight=-5", "/canary/weight"],
  ["canary.weight=101", "/canary/weight"],
  ["canary.weight=half", "/canary/weight"],
  ["canary.owner=me", "/canary/owner"],
  ["traffic.retries.retryOn=unavailable", "/traffic/retries/retryOn"],
  ["traffic.retries.retryOn=cancelled", "/traffic/retries/retryOn"],
  ["image.digest=sha256:1", "/image/digest"],
  ["redis.url=http://redis", "/redis/url"],
  ["drain.preStopSeconds=0", "/drain/preStopSeconds"],
  ["fullnameOverride=a.b", "/fullnameOverride"],
  ["fullnameOverride=1st", "/fullnameOverride"],
  ["canary.analysis.window=500ms", "/canary/analysis/window"],
  ["canary.analysis.window=0m", "/canary/analysis/window"],
  ["traffic.outlierDetection.baseEjectionTime=0s", "/traffic/outlierDetection/baseEjectionTime"],
  ["pdb.maxUnavailable=00%", "/pdb/maxUnavailable"],
];

test.each(UNKNOWN)("the schema refuses %s", async (set, named) => {
  const { exitCode, stderr } = await render({ set: [set] });
  expect(exitCode).not.toBe(0);
  expect(stderr).toContain(named);
});

describe("what a promotion passes through is not refused", () => {
  test.each([
    ["the same image while the weight is 0", ["canary.enabled=true", "canary.weight=0"]],
    ["a canary that is off with its image named", ["canary.image.tag=99.0.0"]],
    [
      "all traffic on the canary",
      ["canary.enabled=true", "canary.weight=100", "canary.image.tag=99.0.0", "canary.replicas=3"],
    ],
    ["a longer grace period than needed", ["drain.terminationGracePeriodSeconds=600"]],
    ["an image by reference", ["canary.enabled=true", "canary.weight=5", "canary.image=r.example/parley:99.0.0"]],
  ])("%s", async (_, set) => {
    expect(await render({ set })).toMatchObject({ exitCode: 0 });
  });
});
