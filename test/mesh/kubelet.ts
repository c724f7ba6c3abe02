import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Container, startContainer } from "./container.ts";
import { type Image, readImage } from "./image.ts";
import { type KubeApi, KubeError, type Manifest } from "./kube-api.ts";
import { NODE_IP, type PodNetwork, podNetworks } from "./pod-network.ts";
import { type ProbeLoop, startProbe } from "./probes.ts";

/** A pod that runs, or did. */
export interface RunningPod {
  readonly name: string;
  readonly ip: string;
  /** Its network namespace. */
  readonly network: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Of its first container. */
  readonly image: string;
  /** Where its containers' logs are, `<container>.log`. */
  readonly folder: string;
  readonly ready: boolean;
  /** Names of containers in the order in which they became ready, or ended. */
  readonly started: readonly string[];
  readonly ended: readonly { readonly name: string; readonly exitCode: number }[];
  /** Containers that had not ended when the grace period had. */
  readonly killed: readonly string[];
  readonly restarts: number;
  /** Kubernetes has said that it shall go. */
  readonly isLeaving: boolean;
  readonly gone: boolean;
}

export interface Kubelet {
  /** All pods so far, in the order in which they came. */
  readonly pods: readonly RunningPod[];
  stop(): Promise<void>;
}

const POLL_MS = 100;
const NODE = "mesh-node";

/**
 * A node of one namespace: binds its pods to itself and runs their containers, in the order and with the probes, hooks, signals
 * and deadlines of the real one (kubernetes.io, "Pod Lifecycle"). Images are all the project; their tags are names only.
 */
export async function startKubelet({
  api,
  namespace,
  folder,
  hasImage,
}: {
  api: KubeApi;
  namespace: string;
  folder: string;
  /** Whether a registry would have it. */
  hasImage(reference: string): boolean;
}): Promise<Kubelet> {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const newNetwork = podNetworks();
  const image = readImage();
  const pods = new Map<string, Pod>();
  await api.apply({ apiVersion: "v1", kind: "Node", metadata: { name: NODE } }, { manager: "kubelet" });
  await api.patch(`/api/v1/nodes/${NODE}/status`, { status: { conditions: [{ type: "Ready", status: "True" }] } });

  let stopped = false;
  const look = async (): Promise<void> => {
    for (const pod of await api.list(path)) {
      const { uid, name, deletionTimestamp } = pod.metadata;
      const known = pods.get(uid);
      if (known !== undefined) {
        if (deletionTimestamp !== undefined) void known.terminate(pod.metadata.deletionGracePeriodSeconds ?? 30);
        continue;
      }
      if (deletionTimestamp !== undefined) {
        await api.delete(`${path}/${name}?gracePeriodSeconds=0`).catch(ignoreMissing);
        continue;
      }
      const made = new Pod({ api, path: `${path}/${name}`, pod, image, hasImage, folder: join(folder, name) });
      pods.set(uid, made);
      void made.run(newNetwork).catch((error: unknown) => made.fail(error));
    }
  };
  const looking = (async () => {
    while (!stopped) {
      await look().catch((error: unknown) => {
        if (!stopped) process.stderr.write(`kubelet: ${error instanceof Error ? error.message : String(error)}\n`);
      });
      await sleep(POLL_MS);
    }
  })();
  return {
    get pods() {
      return [...pods.values()];
    },
    async stop() {
      stopped = true;
      await looking;
      await Promise.all([...pods.values()].map((pod) => pod.kill()));
      // Those that were leaving say so to an API server that is still there.
      await Promise.all([...pods.values()].map((pod) => pod.left()));
    },
  };
}

interface PodOptions {
  readonly api: KubeApi;
  readonly path: string;
  readonly pod: Manifest;
  readonly image: Image;
  readonly folder: string;
  hasImage(reference: string): boolean;
}

/** A container with what the kubelet knows of it. */
interface Managed {
  readonly spec: Manifest;
  readonly isSidecar: boolean;
  container: Container | undefined;
  started: boolean;
  ready: boolean;
  restarts: number;
  probes: ProbeLoop[];
}

/** One pod's life: pending, running, terminating, gone. */
class Pod implements RunningPod {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly image: string;
  readonly folder: string;
  readonly started: string[] = [];
  readonly ended: { name: string; exitCode: number }[] = [];
  readonly killed: string[] = [];
  gone = false;
  readonly #options: PodOptions;
  readonly #spec: Manifest;
  readonly #managed: Managed[];
  #network: PodNetwork | undefined;
  #terminating: Promise<void> | undefined;
  #isTerminating = false;
  #problem = "";
  #told = "";
  #telling: Promise<void> = Promise.resolve();

  constructor(options: PodOptions) {
    const { metadata, spec } = options.pod;
    this.#options = options;
    this.#spec = spec;
    this.name = metadata.name;
    this.labels = metadata.labels;
    this.image = spec.containers[0].image;
    this.folder = options.folder;
    this.#managed = [...(spec.initContainers ?? []), ...spec.containers].map((container) => ({
      spec: container,
      isSidecar: container.restartPolicy === "Always",
      container: undefined,
      started: false,
      ready: false,
      restarts: 0,
      probes: [],
    }));
  }

  get ip(): string {
    return this.#network?.ip ?? "";
  }

  get network(): string {
    return this.#network?.namespace ?? "";
  }

  get ready(): boolean {
    return this.#problem === "" && this.#managed.every(({ ready }) => ready);
  }

  get isLeaving(): boolean {
    return this.#isTerminating;
  }

  get restarts(): number {
    return this.#managed.reduce((sum, { restarts }) => sum + restarts, 0);
  }

  async run(newNetwork: () => Promise<PodNetwork>): Promise<void> {
    const { api, path, pod } = this.#options;
    await mkdir(this.folder, { recursive: true });
    if (pod.spec.nodeName === undefined) {
      const target = { apiVersion: "v1", kind: "Node", name: NODE };
      await api.post(`${path}/binding`, { apiVersion: "v1", kind: "Binding", metadata: { name: this.name }, target });
    }
    this.#network = await newNetwork();
    await this.#tell();
    for (const one of this.#managed) {
      if (this.#isTerminating) return;
      if (!this.#options.hasImage(one.spec.image)) throw new Error(`no image ${one.spec.image}`);
      await this.#start(one);
      // The next one waits for a sidecar's startup probe; containers of the pod itself start at once.
      if (one.isSidecar) while (!one.started && !this.#isTerminating) await sleep(POLL_MS);
    }
  }

  /** What keeps the pod from running stands in its status. */
  async fail(error: unknown): Promise<void> {
    this.#problem = error instanceof Error ? error.message : String(error);
    await this.#tell();
  }

  async #start(one: Managed): Promise<void> {
    const network = this.#network as PodNetwork;
    const { api, image, folder } = this.#options;
    const { env, files } = await surroundings({
      api,
      namespace: this.#options.pod.metadata.namespace,
      one,
      spec: this.#spec,
    });
    if (this.#isTerminating) return;
    const container = await startContainer({ spec: one.spec, image, network, folder, env, files });
    one.container = container;
    const target = { ip: network.ip, ports: one.spec.ports ?? [] };
    const begun = (): void => {
      one.started = true;
      if (one.spec.readinessProbe === undefined) this.#isReady(one, true);
      else one.probes.push(startProbe(one.spec.readinessProbe, target, (healthy) => this.#isReady(one, healthy)));
      if (one.spec.livenessProbe !== undefined) {
        const onLive = (healthy: boolean): void => {
          if (!healthy) container.signal("SIGTERM");
        };
        one.probes.push(startProbe(one.spec.livenessProbe, target, onLive));
      }
      void this.#tell();
    };
    if (one.spec.startupProbe === undefined) begun();
    else {
      const startup = startProbe(one.spec.startupProbe, target, (healthy) => {
        startup.stop();
        if (container.end !== undefined) return;
        if (healthy) begun();
        else container.signal("SIGTERM");
      });
      one.probes.push(startup);
    }
    void container.ended.then((end) => this.#hasEnded(one, end.exitCode));
  }

  #isReady(one: Managed, ready: boolean): void {
    if (ready && !one.ready) this.started.push(one.spec.name);
    one.ready = ready;
    void this.#tell();
  }

  async #hasEnded(one: Managed, exitCode: number): Promise<void> {
    for (const loop of one.probes.splice(0)) loop.stop();
    this.ended.push({ name: one.spec.name, exitCode });
    one.ready = false;
    one.started = false;
    await this.#tell();
    if (this.#isTerminating || this.#spec.restartPolicy === "Never") return;
    one.restarts += 1;
    await sleep(1_000);
    if (!this.#isTerminating) await this.#start(one);
  }

  /** Ends the pod within its grace period: containers first, each after its hook, sidecars last; then it is gone. */
  terminate(graceSeconds: number): Promise<void> {
    this.#isTerminating = true;
    this.#terminating ??= this.#terminate(graceSeconds * 1_000);
    return this.#terminating;
  }

  /** Resolves when a pod that is terminated is gone; at once for others. */
  async left(): Promise<void> {
    await this.#terminating;
  }

  async #terminate(graceMs: number): Promise<void> {
    const running = (sidecars: boolean): Managed[] =>
      this.#managed.filter((one) => one.isSidecar === sidecars && one.container?.end === undefined && one.container);
    let isOver = false;
    const inOrder = async (): Promise<void> => {
      await Promise.all(
        running(false).map(async (one) => {
          await sleep((one.spec.lifecycle?.preStop?.sleep?.seconds ?? 0) * 1_000);
          if (!isOver) one.container?.signal("SIGTERM");
          await one.container?.ended;
        }),
      );
      for (const one of running(true).toReversed()) {
        if (!isOver) one.container?.signal("SIGTERM");
        await one.container?.ended;
      }
    };
    const late = sleep(graceMs).then(() => true);
    if (await Promise.race([inOrder().then(() => false), late])) {
      isOver = true;
      this.killed.push(...[...running(false), ...running(true)].map(({ spec }) => spec.name));
    }
    await this.kill();
    await this.#options.api.delete(`${this.#options.path}?gracePeriodSeconds=0`).catch(ignoreMissing);
  }

  /** Ends it at once, as a node that fails does. */
  async kill(): Promise<void> {
    this.#isTerminating = true;
    for (const one of this.#managed) {
      for (const loop of one.probes.splice(0)) loop.stop();
      one.container?.signal("SIGKILL");
      await one.container?.ended;
    }
    await this.#network?.remove();
    this.gone = true;
  }

  /** Writes the status, where it has changed; one after the other, so that what is over stays over. */
  #tell(): Promise<void> {
    this.#telling = this.#telling.then(() => this.#tellNow());
    return this.#telling;
  }

  async #tellNow(): Promise<void> {
    const status = this.#status();
    const text = JSON.stringify(status);
    if (text === this.#told || this.gone) return;
    this.#told = text;
    await this.#options.api.patch(`${this.#options.path}/status`, { status }).catch(ignoreMissing);
  }

  #status(): Manifest {
    const initialized = this.#managed.every((one) => !one.isSidecar || one.started || one.container?.end !== undefined);
    const ended = this.#managed.filter((one) => !one.isSidecar && one.container?.end !== undefined);
    const isOver = this.#spec.restartPolicy === "Never" && ended.length === this.#spec.containers.length;
    const succeeded = ended.every((one) => one.container?.end?.exitCode === 0);
    const isRunning = this.#managed.some((one) => one.container !== undefined);
    const condition = (type: string, holds: boolean): Manifest => ({ type, status: holds ? "True" : "False" });
    return {
      phase: isOver ? (succeeded ? "Succeeded" : "Failed") : isRunning ? "Running" : "Pending",
      ...(this.#problem === "" ? {} : { message: this.#problem }),
      hostIP: NODE_IP,
      ...(this.#network === undefined ? {} : { podIP: this.ip, podIPs: [{ ip: this.ip }] }),
      conditions: [
        condition("PodScheduled", true),
        condition("Initialized", initialized),
        condition("ContainersReady", this.ready),
        condition("Ready", this.ready),
      ],
      initContainerStatuses: this.#managed.filter((one) => one.isSidecar).map(containerStatus),
      containerStatuses: this.#managed.filter((one) => !one.isSidecar).map(containerStatus),
    };
  }
}

function containerStatus({ spec, container, started, ready, restarts }: Managed): Manifest {
  const end = container?.end;
  const startedAt = new Date(container?.startedMs ?? 0).toISOString();
  const state =
    container === undefined
      ? { waiting: { reason: "PodInitializing" } }
      : end === undefined
        ? { running: { startedAt } }
        : { terminated: { exitCode: end.exitCode, startedAt, finishedAt: new Date(end.atMs).toISOString() } };
  return { name: spec.name, image: spec.image, imageID: spec.image, ready, started, restartCount: restarts, state };
}

/** A container's variables and mounted files, its Secrets and ConfigMaps looked up. */
async function surroundings({
  api,
  namespace,
  one,
  spec,
}: {
  api: KubeApi;
  namespace: string;
  one: Managed;
  spec: Manifest;
}): Promise<{ env: Record<string, string>; files: Record<string, string> }> {
  const env: Record<string, string> = {};
  for (const { name, value, valueFrom } of one.spec.env ?? []) {
    if (valueFrom === undefined) env[name] = value ?? "";
    else {
      const { name: secret, key } = valueFrom.secretKeyRef;
      const { data } = await api.get(`/api/v1/namespaces/${namespace}/secrets/${secret}`);
      env[name] = Buffer.from(data[key], "base64").toString();
    }
  }
  const files: Record<string, string> = {};
  for (const { name, mountPath } of one.spec.volumeMounts ?? []) {
    const volume = spec.volumes?.find((candidate: Manifest) => candidate.name === name);
    if (volume?.configMap === undefined) continue;
    const { data } = await api.get(`/api/v1/namespaces/${namespace}/configmaps/${volume.configMap.name}`);
    for (const [file, text] of Object.entries(data)) files[join(mountPath, file)] = String(text);
  }
  return { env, files };
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof KubeError && error.status === 404)) throw error;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
