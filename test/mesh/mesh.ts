import { execFile } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { stringify } from "yaml";
import { type Caller, callerOf } from "../app/clients.ts";
import { threeWires } from "../rpc/wires.ts";
import { CHART } from "../support/helm.ts";
import { type PrometheusServer, startPrometheus } from "../support/prometheus-server.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { PROJECT } from "./image.ts";
import { type Istio, startIstio } from "./istio.ts";
import type { KubeApi, Manifest } from "./kube-api.ts";
import { type Kubelet, type RunningPod, startKubelet } from "./kubelet.ts";
import { helmBinary } from "./mesh-tools.ts";
import { type Behaviour, type ModelDouble, QUICK, startModelDouble } from "./model-double.ts";
import { NODE_IP } from "./pod-network.ts";
import { until } from "./processes.ts";

export interface HelmAnswer {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A release engineer's cluster: everything real but the nodes. */
export interface Mesh {
  readonly api: KubeApi;
  readonly istio: Istio;
  readonly model: ModelDouble;
  readonly redis: RedisServer;
  /** Pods that serve a track now. */
  podsOf(track: "stable" | "canary"): RunningPod[];
  /** All pods so far. */
  readonly pods: readonly RunningPod[];
  /** How the model answers pods of an image; others get {@link QUICK} answers. */
  behave(image: string, behaviour: Behaviour): void;
  helm(...args: readonly string[]): Promise<HelmAnswer>;
  /** `helm upgrade --install` of the chart with these values on top of the test's own, all of them, waiting for its end. */
  upgrade(
    values: Manifest,
    options?: { readonly chart?: string; readonly flags?: readonly string[] },
  ): Promise<HelmAnswer>;
  /** Callers through the gateway, each on a connection of its own. */
  callers(count: number, headers?: Readonly<Record<string, string>>): Caller[];
  /** Scrapes all pods, from their first readiness to their end. */
  readonly prometheus: PrometheusServer;
  /** Of user u1, with the roles that the tests need. */
  readonly apiKey: string;
  /** Resolves when Envoy has the routes of the newest VirtualService, and behind each track the pods that are ready. */
  routed(): Promise<void>;
  /** Where logs are. */
  readonly folder: string;
  /** File for kubectl and Helm. */
  readonly kubeconfig: string;
  /** Values that all releases of these tests have. */
  readonly valuesFile: string;
  stop(): Promise<void>;
}

/** Image references that the registry would have. */
const HAS_IMAGE = /^(registry\.test\/)?parley:[0-9a-z.-]+$/;

/** Starts all of it, in an empty namespace `chat`. About twenty seconds. */
export async function startMesh(): Promise<Mesh> {
  const folder = await mkdtemp(join(tmpdir(), "parley-mesh-"));
  const stopping: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const one of stopping.splice(0).toReversed()) await one();
  };
  try {
    const cluster: Cluster = await startCluster(join(folder, "cluster"));
    stopping.push(() => cluster.stop());
    const { api, kubeconfig } = cluster;
    const redis = await startRedisServer({ settings: { bind: "0.0.0.0", "protected-mode": "no" } });
    stopping.push(() => redis.stop());
    const redisUrl = `redis://${NODE_IP}:${redis.port}`;
    const behaviours = new Map<string, Behaviour>();
    const node: { kubelet?: Kubelet } = {};
    const imageOf = (ip: string): string => node.kubelet?.pods.find((pod) => pod.ip === ip)?.image ?? "";
    const model = await startModelDouble((ip) => behaviours.get(imageOf(ip)) ?? QUICK);
    stopping.push(() => model.close());
    const kubelet = await startKubelet({
      api,
      namespace: "chat",
      folder: join(folder, "pods"),
      hasImage: (reference) => HAS_IMAGE.test(reference),
    });
    stopping.push(() => kubelet.stop());
    node.kubelet = kubelet;
    const istio = await startIstio({ api, kubeconfig, folder: join(folder, "istio") });
    stopping.push(() => istio.stop());

    const apiKey = await makeApiKey(redisUrl);
    const secret = (name: string, data: Record<string, string>) =>
      api.apply(
        { apiVersion: "v1", kind: "Secret", metadata: { name, namespace: "chat" }, stringData: data },
        { manager: "mesh", force: true },
      );
    await secret("parley-redis", { url: redisUrl });
    await secret("parley-model", { "api-key": "sk-mesh" });
    await secret("parley-test", { "api-key": apiKey });
    const values = { ...VALUES, model: { ...VALUES.model, baseUrl: model.baseUrl } };

    const helm = async (...args: readonly string[]): Promise<HelmAnswer> => {
      const env = { ...process.env, KUBECONFIG: kubeconfig, HELM_NAMESPACE: "chat", HOME: folder };
      return promisify(execFile)(await helmBinary(), args, { env, maxBuffer: 64 * 1024 * 1024 }).then(
        (output) => ({ code: 0, ...output }),
        (error: HelmAnswer) => error,
      );
    };
    const podsOf = (track: string): RunningPod[] =>
      kubelet.pods.filter((pod) => pod.labels.track === track && pod.ready && !pod.isLeaving);
    const prometheus = await startPrometheus([], { namespace: "chat" });
    stopping.push(() => prometheus.close());
    let scraped = "";
    const retarget = async (): Promise<void> => {
      const targets = kubelet.pods
        .filter(({ gone, ip, labels }) => !gone && ip !== "" && labels.track !== undefined)
        .flatMap(({ ip }) => [`${ip}:9090`, `${ip}:9091`]);
      if (targets.join() === scraped) return;
      scraped = targets.join();
      await prometheus.retarget(targets);
    };
    const retargeting = setInterval(() => void retarget(), 500);
    stopping.push(async () => clearInterval(retargeting));
    const valuesFile = join(folder, "values-common.yaml");
    await writeFile(valuesFile, stringify(values));
    let upgrades = 0;
    return {
      api,
      istio,
      model,
      redis,
      prometheus,
      apiKey,
      folder,
      kubeconfig,
      valuesFile,
      helm,
      get pods() {
        return kubelet.pods;
      },
      podsOf,
      behave: (image, behaviour) => void behaviours.set(image, behaviour),
      async upgrade(own, { chart = CHART, flags = [] } = {}) {
        upgrades += 1;
        const ownFile = join(folder, `values-${upgrades}.yaml`);
        await writeFile(ownFile, stringify(own));
        const given = [valuesFile, ownFile].flatMap((file) => ["--values", file]);
        const all = ["--install", "--reset-values", ...given, "--wait", "--timeout", "120s", ...flags];
        return helm("upgrade", "parley", chart, ...all);
      },
      callers(count, headers = {}) {
        const all = { authorization: `Bearer ${apiKey}`, ...headers };
        const transport = (baseUrl: string) =>
          createGrpcTransport({
            baseUrl,
            interceptors: [
              (next) => (request) => {
                for (const [name, value] of Object.entries(all)) request.header.set(name, value);
                return next(request);
              },
            ],
          });
        return Array.from({ length: count }, () => callerOf(istio, { ...threeWires[1], transport }));
      },
      routed: () => untilRouted({ api, istio, podsOf }),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What all releases of these tests have. The drain is short: streams here last seconds, not minutes. */
const VALUES = {
  image: { repository: "registry.test/parley", tag: "0.5.0" },
  istio: { hosts: ["chat.example.test"], gateways: ["mesh", "chat/edge"] },
  // Its Redis has no replica, whatever the production overlay wants.
  redis: { existingSecret: "parley-redis", durability: "local" },
  model: { existingSecret: "parley-model" },
  test: { existingSecret: "parley-test", userId: "" },
  limits: { rateLimit: 1_000_000 },
  drain: { preStopSeconds: 2, maxTurnSeconds: 20, closeSeconds: 15, sidecarFlushSeconds: 10 },
  networkPolicy: { enabled: false },
  logLevel: "info",
};

async function makeApiKey(redisUrl: string): Promise<string> {
  const args = ["src/keys-cli.ts", "make", "--user", "u1", "--roles", "chat,usage:read", "--note", "mesh"];
  const env = { ...process.env, REDIS_URL: redisUrl };
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: PROJECT, env });
  return stdout.trim();
}

/** istiod gives routes and addresses on a moment after it has them. */
async function untilRouted({
  api,
  istio,
  podsOf,
}: {
  api: KubeApi;
  istio: Istio;
  podsOf(track: string): readonly RunningPod[];
}): Promise<void> {
  await until("the node to hear of pods that shall go", async () => {
    const leaving = (await api.list("/api/v1/namespaces/chat/pods")).filter(
      ({ metadata }) => metadata.deletionTimestamp !== undefined,
    );
    const serving = new Set(["stable", "canary"].flatMap((track) => podsOf(track).map(({ name }) => name)));
    return leaving.every(({ metadata }) => !serving.has(metadata.name));
  });
  const { spec } = await api.get("/apis/networking.istio.io/v1/namespaces/chat/virtualservices/parley");
  const ofGateway = (route: Manifest): boolean =>
    route.match?.every(({ gateways }: Manifest) => gateways !== undefined && !gateways.includes("chat/edge")) !== true;
  const wanted = spec.http.filter(ofGateway).map((route: Manifest) => `${route.name} ${weightsOf(route)}`);
  const tracks = ["stable", "canary"].filter((track) => podsOf(track).length > 0);
  await until(`Envoy to route ${wanted.join(", ")}`, async () => (await routesOfEnvoy()).join() === wanted.join());
  for (const track of tracks)
    await until(`Envoy to know the pods of ${track}`, async () => {
      const ips = podsOf(track).map(({ ip }) => ip);
      return (await addressesOfEnvoy(track)).toSorted().join() === ips.toSorted().join();
    });
  const refusals = await istio.refusals();
  if (refusals.length > 0) throw new Error(`Envoy refused a configuration: ${refusals[0]}`);
}

/** Addresses that Envoy would send calls of a track to. */
async function addressesOfEnvoy(track: string): Promise<string[]> {
  const response = await fetch("http://127.0.0.1:15000/clusters?format=json");
  const { cluster_statuses: clusters } = (await response.json()) as Manifest;
  const name = `outbound|8080|${track}|parley.chat.svc.cluster.local`;
  const hosts = clusters.find((one: Manifest) => one.name === name)?.host_statuses ?? [];
  return hosts.map(({ address }: Manifest) => address.socket_address.address);
}

function weightsOf({ route }: Manifest): string {
  return route
    .filter(({ weight }: Manifest) => weight !== 0)
    .map(({ destination, weight }: Manifest) => `${destination.subset}:${weight ?? 100}`)
    .join("/");
}

/** The names and weights of the routes that Envoy has for the chart's host, in their order; a route per match, so once each. */
async function routesOfEnvoy(): Promise<string[]> {
  const response = await fetch("http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs");
  const { configs = [] } = (await response.json()) as Manifest;
  const config = configs.find(({ route_config }: Manifest) => route_config.name === "http.8080");
  const host = config?.route_config.virtual_hosts.find(({ domains }: Manifest) =>
    domains.includes("chat.example.test"),
  );
  const names = (host?.routes ?? []).map((route: Manifest) => {
    const { cluster, weighted_clusters: weighted } = route.route;
    const clusters = weighted?.clusters ?? [{ name: cluster, weight: 100 }];
    const weights = clusters
      .filter(({ weight }: Manifest) => (weight ?? 0) > 0)
      .map(({ name, weight }: Manifest) => `${name.split("|")[2]}:${weight}`);
    return `${route.name} ${weights.join("/")}`;
  });
  return names.filter((name: string, index: number) => name !== names[index - 1]);
}
