import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";
import { type KubeApi, kubeApi, type Manifest } from "./kube-api.ts";
import { controlPlane, customResourceFiles } from "./mesh-tools.ts";
import { type Daemon, startDaemon, until } from "./processes.ts";

/** A control plane without nodes: etcd, API server and controllers, with the custom resources of the chart. */
export interface Cluster {
  readonly api: KubeApi;
  readonly kubeconfig: string;
  stop(): Promise<void>;
}

/** Controllers that what the chart makes needs; all others would only take time. */
const CONTROLLERS = [
  "deployment-controller",
  "replicaset-controller",
  "endpointslice-controller",
  "job-controller",
  "horizontal-pod-autoscaler-controller",
  "disruption-controller",
  "garbage-collector-controller",
  "namespace-controller",
  "serviceaccount-controller",
].join(",");

const API_PORT = 16443;
const ETCD_PORT = 12379;

/** Starts one on the loopback, in a folder that is its own. */
export async function startCluster(folder: string): Promise<Cluster> {
  const program = await controlPlane();
  const path = (name: string): string => join(folder, name);
  await mkdir(folder, { recursive: true });
  const token = crypto.randomUUID();
  await writeFile(path("tokens.csv"), `${token},mesh,mesh,system:masters\n`, { mode: 0o600 });
  await promisify(execFile)("openssl", ["genrsa", "-out", path("accounts.key"), "2048"]);
  const daemons: Daemon[] = [];
  const stop = async (): Promise<void> => {
    for (const daemon of daemons.toReversed()) await daemon.stop();
  };
  try {
    const etcdUrl = `http://127.0.0.1:${ETCD_PORT}`;
    const peerUrl = `http://127.0.0.1:${ETCD_PORT + 1}`;
    daemons.push(
      await startDaemon(
        [
          program,
          "etcd",
          "--name=mesh",
          `--data-dir=${path("etcd")}`,
          "--unsafe-no-fsync",
          "--log-level=warn",
          `--listen-client-urls=${etcdUrl}`,
          `--advertise-client-urls=${etcdUrl}`,
          `--listen-peer-urls=${peerUrl}`,
          `--initial-advertise-peer-urls=${peerUrl}`,
          `--initial-cluster=mesh=${peerUrl}`,
        ],
        { logFile: path("etcd.log"), isUp: () => fetch(`${etcdUrl}/health`) },
      ),
    );
    let api: KubeApi | undefined;
    daemons.push(
      await startDaemon(
        [
          program,
          "kube-apiserver",
          `--etcd-servers=${etcdUrl}`,
          "--bind-address=127.0.0.1",
          "--advertise-address=127.0.0.1",
          `--secure-port=${API_PORT}`,
          `--cert-dir=${path("certificates")}`,
          `--token-auth-file=${path("tokens.csv")}`,
          "--authorization-mode=RBAC",
          "--service-account-issuer=https://mesh.invalid",
          `--service-account-key-file=${path("accounts.key")}`,
          `--service-account-signing-key-file=${path("accounts.key")}`,
          "--service-cluster-ip-range=10.96.0.0/16",
          "--endpoint-reconciler-type=none",
          "--disable-admission-plugins=ServiceAccount",
          "--profiling=false",
        ],
        {
          logFile: path("apiserver.log"),
          async isUp() {
            const ca = await readFile(path("certificates/apiserver.crt"), "utf8");
            api = kubeApi({ url: `https://127.0.0.1:${API_PORT}`, token, ca });
            // Answers 403 before the rights of the token's group are made.
            await api.get("/api/v1/namespaces/default");
          },
        },
      ),
    );
    if (api === undefined) throw new Error("the API server has no certificate");
    const kubeconfig = path("kubeconfig");
    await writeFile(kubeconfig, kubeconfigOf({ token, certificate: path("certificates/apiserver.crt") }), {
      mode: 0o600,
    });
    daemons.push(
      await startDaemon(
        [
          program,
          "kube-controller-manager",
          `--kubeconfig=${kubeconfig}`,
          "--bind-address=127.0.0.1",
          "--leader-elect=false",
          "--use-service-account-credentials=false",
          `--service-account-private-key-file=${path("accounts.key")}`,
          "--authentication-skip-lookup=true",
          // It would wait for metrics before it looks at the least number of pods once more.
          "--horizontal-pod-autoscaler-sync-period=2s",
          `--controllers=${CONTROLLERS}`,
        ],
        { logFile: path("controllers.log"), isUp: async () => undefined },
      ),
    );
    await makeCustomResources(api);
    for (const name of ["istio-system", "chat"])
      await api.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name } }, { manager: "mesh" });
    return { api, kubeconfig, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function kubeconfigOf({ token, certificate }: { token: string; certificate: string }): string {
  // JSON is YAML.
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "mesh", cluster: { server: `https://127.0.0.1:${API_PORT}`, "certificate-authority": certificate } },
    ],
    users: [{ name: "mesh", user: { token } }],
    contexts: [{ name: "mesh", context: { cluster: "mesh", user: "mesh", namespace: "chat" } }],
    "current-context": "mesh",
  });
}

async function makeCustomResources(api: KubeApi): Promise<void> {
  const names: string[] = [];
  for (const file of await customResourceFiles()) {
    for (const document of parseAllDocuments(await readFile(file, "utf8"))) {
      const definition = document.toJS() as Manifest;
      if (definition?.kind !== "CustomResourceDefinition") continue;
      names.push(definition.metadata.name);
      await api.apply(definition, { manager: "mesh", force: true });
    }
  }
  await until("the custom resources", async () => {
    const made = await api.list("/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    const established = made.filter(({ status }) =>
      status?.conditions?.some((one: Manifest) => one.type === "Established" && one.status === "True"),
    );
    return established.length === names.length;
  });
}
