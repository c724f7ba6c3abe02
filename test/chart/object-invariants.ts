import { parse } from "yaml";
import type { Manifest } from "../support/helm.ts";
import {
  containers,
  env,
  holds,
  type Invariant,
  ofKind,
  otherPods,
  pods,
  same,
  shadows,
  workloads,
} from "./manifests.ts";

const INSTANCE = { "app.kubernetes.io/name": "parley", "app.kubernetes.io/instance": "parley" };

/** What holds for everything else. */
export const OBJECT_INVARIANTS: readonly Invariant[] = [
  {
    name: "selectors hold instance and track, never the version",
    check({ objects, values: { canary } }) {
      const wanted = (track: string): unknown => ({ ...INSTANCE, track });
      // Flagger gives the pods that serve another name.
      const { "app.kubernetes.io/name": _, ...instance } = INSTANCE;
      const all = canary.enabled && canary.owner === "flagger" ? instance : INSTANCE;
      return [
        ...workloads(objects).flatMap(({ metadata, spec }) => [
          ...same(`${metadata.name} selects`, spec.selector.matchLabels, wanted(metadata.labels.track)),
          ...holds(`pods of ${metadata.name}`, spec.template.metadata.labels, wanted(metadata.labels.track)),
        ]),
        ...ofKind(objects, "PodDisruptionBudget").flatMap(({ metadata, spec }) =>
          same(`${metadata.name} selects`, spec.selector.matchLabels, { ...all, track: metadata.labels.track }),
        ),
        ...ofKind(objects, "Service").flatMap(({ spec }) => same("the Service selects", spec.selector, all)),
        ...ofKind(objects, "NetworkPolicy").flatMap(({ spec }) =>
          same("the NetworkPolicy selects", spec.podSelector.matchLabels, all),
        ),
        ...ofKind(objects, "PodMonitor").flatMap(({ spec }) =>
          same("the PodMonitor selects", spec.selector.matchLabels, all),
        ),
      ];
    },
  },
  {
    name: "the pods of helm test and of hooks are none of the Service's",
    check: ({ objects }) =>
      otherPods(objects)
        .filter(({ labels }) => Object.entries(INSTANCE).some(([key, value]) => labels[key] === value))
        .map(({ name }) => `${name} would be sent calls`),
  },
  {
    name: "an upgrade asks each image that it brings whether it can read what is stored",
    check({ objects, values: { state } }) {
      const [job, ...others] = ofKind(objects, "Job");
      if (!state.check.enabled) return same("checks", job, undefined);
      const onRedis = pods(objects).filter(({ spec }) => env(spec.containers[0], "REDIS_URL") !== undefined);
      const asking = job?.spec.template.spec.containers ?? [];
      const unique = (list: Manifest[]): unknown => [...new Set(list.map((one) => one.image))].toSorted();
      return [
        ...same("further checks", others, []),
        ...same("hooks", job?.metadata.annotations["helm.sh/hook"], "pre-upgrade,pre-rollback"),
        ...same("images that are asked", unique(asking), unique(onRedis.map(({ spec }) => spec.containers[0]))),
        ...asking.flatMap((one: Manifest) => [
          ...same("what is asked", one.command, ["node", "src/state-cli.ts", "check"]),
          ...same("Redis", env(one, "REDIS_URL"), env(onRedis[0]?.spec.containers[0], "REDIS_URL")),
        ]),
      ];
    },
  },
  {
    name: "the Service's ports have names and protocols, and lead to ports of the pods",
    check({ objects, values }) {
      const service = ofKind(objects, "Service")[0];
      const wanted = [
        { name: "grpc", appProtocol: "grpc", port: 8080, targetPort: "grpc" },
        { name: "http", appProtocol: "http", port: 80, targetPort: "grpc" },
        { name: "ops", appProtocol: "http", port: 9090, targetPort: "ops" },
        ...(values.sidecar.enabled ? [{ name: "usage", appProtocol: "grpc", port: 8081, targetPort: "usage" }] : []),
      ];
      return [
        ...same("the Service's ports", service?.spec.ports, wanted),
        ...pods(objects).flatMap(({ name, spec, track }) => {
          const ports = Object.fromEntries(
            containers(spec).flatMap((container: Manifest) =>
              (container.ports ?? []).map((port: Manifest) => [port.name, port.containerPort]),
            ),
          );
          const sidecar = values.sidecar.enabled && !shadows(values, track);
          return same(`${name} listens on`, ports, {
            ...(sidecar && { usage: 8081, "usage-ops": 9091 }),
            grpc: 8080,
            ops: 9090,
          });
        }),
      ];
    },
  },
  {
    name: "replicas are rendered only where no autoscaler writes them",
    check({ objects, values }) {
      const auto = values.autoscaling;
      const stable = ofKind(objects, "Deployment").find(({ metadata }) => metadata.labels.track === "stable");
      const canary = ofKind(objects, "Deployment").find(({ metadata }) => metadata.labels.track === "canary");
      const scalers = [...ofKind(objects, "HorizontalPodAutoscaler"), ...ofKind(objects, "ScaledObject")];
      const scaled = values.canary.enabled && values.canary.owner === "argo" ? "parley" : "parley-stable";
      return [
        ...same("replicas of stable", stable?.spec.replicas, auto.enabled ? undefined : values.stable.replicas),
        ...same("autoscalers", scalers.length, auto.enabled ? 1 : 0),
        ...scalers.flatMap(({ spec }) => same("what is scaled", spec.scaleTargetRef.name, scaled)),
        ...(canary === undefined ? [] : same("replicas of the canary", canary.spec.replicas, values.canary.replicas)),
      ];
    },
  },
  {
    name: "the CPU that scales is the service container's",
    check: ({ objects }) =>
      ofKind(objects, "HorizontalPodAutoscaler").flatMap(({ spec: { metrics } }) =>
        metrics[0].type === "Pods"
          ? []
          : same("the metric's container", metrics[0].containerResource?.container, "parley"),
      ),
  },
  {
    name: "each track has a budget that lets a node be drained",
    check: ({ objects, values }) => {
      const tracks = ofKind(objects, "Deployment").map(({ metadata }) => metadata.labels.track);
      const budgets = ofKind(objects, "PodDisruptionBudget");
      return [
        ...same(
          "budgets",
          budgets.map(({ metadata }) => metadata.labels.track).toSorted(),
          values.pdb.enabled ? tracks.toSorted() : [],
        ),
        ...budgets.flatMap(({ spec }) => (spec.maxUnavailable === 0 ? ["no pod may go"] : [])),
      ];
    },
  },
  {
    name: "the NetworkPolicy lets in what is served and out to DNS, Redis and models, not to the metadata service",
    check: ({ objects, values }) =>
      ofKind(objects, "NetworkPolicy").flatMap(({ spec }) => {
        const ports = (rules: Manifest[]): number[] =>
          rules.flatMap((rule) => rule.ports.map((one: Manifest) => one.port));
        const served = [8080, 9090, ...(values.sidecar.enabled ? [8081, 9091] : [])];
        const needed = [53, 6379, 443];
        const world = spec.egress.find((rule: Manifest) => rule.to?.[0]?.ipBlock !== undefined);
        return [
          ...served.filter((port) => !ports(spec.ingress).includes(port)).map((port) => `${port} is closed`),
          ...needed.filter((port) => !ports(spec.egress).includes(port)).map((port) => `${port} cannot be reached`),
          ...same("types", spec.policyTypes, ["Ingress", "Egress"]),
          ...same("except", world?.to[0].ipBlock.except, ["169.254.0.0/16"]),
        ];
      }),
  },
  {
    name: "helm test runs a turn on each track that answers people",
    check: ({ objects, values: { canary, test } }) => {
      const pod = ofKind(objects, "Pod")[0];
      if (!test.enabled) return same("test pods", pod, undefined);
      const answers =
        canary.enabled &&
        canary.owner === "helm" &&
        !canary.shadow.safe &&
        (canary.preview.enabled || canary.weight > 0);
      // A session's version is what leads to stable when the canary has all that is new.
      const named = env(pod?.spec.containers[0], "VERSION_HEADER") !== undefined;
      const tracks = canary.weight === 100 && !named ? "canary" : answers ? "stable,canary" : "stable";
      return [
        ...same("hook", pod?.metadata.annotations["helm.sh/hook"], "test"),
        ...same("tracks", env(pod?.spec.containers[0], "TRACKS")?.value, tracks),
        ...same(
          "session's version",
          named,
          ofKind(objects, "VirtualService").some(({ spec }) =>
            spec.http.some((one: Manifest) => one.name === "affinity-stable"),
          ),
        ),
      ];
    },
  },
  {
    name: "the gate's conditions are the values', without cost where nobody counts it",
    check: ({ objects, values: { canary, sidecar } }) => {
      const map = ofKind(objects, "ConfigMap").find(({ metadata }) => metadata.name === "parley-gate");
      if (!canary.enabled) return same("gate", map, undefined);
      const gate = parse(map?.data["gate.yaml"] ?? "{}") as Manifest;
      const { minTurns, window, errorRatioFactor, ttftFactor, costPerTurnFactor } = canary.analysis;
      return same(
        "gate",
        [
          gate.window,
          gate.minTurns,
          gate.conditions.errorRatio.factor,
          gate.conditions.timeToFirstToken.factor,
          gate.conditions.costPerTurn?.factor,
        ],
        [window, minTurns, errorRatioFactor, ttftFactor, sidecar.enabled ? costPerTurnFactor : undefined],
      );
    },
  },
];
