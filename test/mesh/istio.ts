import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KubeApi } from "./kube-api.ts";
import { envoy, istiod } from "./mesh-tools.ts";
import { NODE_IP } from "./pod-network.ts";
import { type Daemon, startDaemon } from "./processes.ts";

/** istiod and one Envoy as an ingress gateway. */
export interface Istio {
  /** Where clients outside the pods call: `http://chat.example.test:8080`. */
  readonly url: string;
  /** What Envoy was given and refused: it goes on with what it had, and says so nowhere else. */
  refusals(): Promise<string[]>;
  /** Sum of Envoy's counters whose names match. */
  counter(filter: RegExp): Promise<number>;
  stop(): Promise<void>;
}

const XDS_PORT = 15010;
const ADMIN_PORT = 15000;
const GATEWAY_LABELS = { istio: "edge" };

export async function startIstio({
  api,
  kubeconfig,
  folder,
}: {
  api: KubeApi;
  kubeconfig: string;
  folder: string;
}): Promise<Istio> {
  await mkdir(folder, { recursive: true });
  // What is not in upstream's Envoy, or needs certificates of the pods, is off.
  await writeFile(join(folder, "mesh.yaml"), "enableAutoMtls: false\nenableTracing: false\n");
  await api.apply(gateway, { manager: "mesh" });
  const daemons: Daemon[] = [];
  const stop = async (): Promise<void> => {
    for (const daemon of daemons.toReversed()) await daemon.stop();
  };
  try {
    const discovery = await startDaemon(
      [
        await istiod(),
        "discovery",
        "--registries=Kubernetes",
        `--kubeconfig=${kubeconfig}`,
        `--meshConfig=${join(folder, "mesh.yaml")}`,
        "--networksConfig=/nonexistent",
        "--httpAddr=127.0.0.1:18081",
        "--httpsAddr=",
        `--grpcAddr=127.0.0.1:${XDS_PORT}`,
        "--secureGRPCAddr=",
        "--monitoringAddr=127.0.0.1:15014",
        "--ctrlz_port=0",
      ],
      {
        logFile: join(folder, "istiod.log"),
        cwd: folder,
        env: {
          PATH: process.env.PATH ?? "",
          POD_NAME: "istiod",
          POD_NAMESPACE: "istio-system",
          CLUSTER_ID: "Kubernetes",
          ENABLE_CA_SERVER: "false",
          PILOT_CERT_PROVIDER: "none",
          PILOT_ENABLE_METADATA_EXCHANGE: "false",
          PILOT_ENABLE_ALPN_FILTER: "false",
          PILOT_ENABLE_GATEWAY_API: "false",
          INJECTION_WEBHOOK_CONFIG_NAME: "",
          VALIDATION_WEBHOOK_CONFIG_NAME: "",
        },
        isUp: () => ok("http://127.0.0.1:18081/ready"),
      },
    );
    daemons.push(discovery);
    const bootstrap = join(folder, "envoy.json");
    await writeFile(bootstrap, JSON.stringify(envoyBootstrap()));
    daemons.push(
      await startDaemon([await envoy(), "-c", bootstrap, "--concurrency", "1", "--log-level", "warning"], {
        logFile: join(folder, "envoy.log"),
        isUp: () => ok(`http://127.0.0.1:${ADMIN_PORT}/ready`),
      }),
    );
    return {
      url: "http://chat.example.test:8080",
      async refusals() {
        const log = await readFile(discovery.logFile, "utf8");
        return log.split("\n").filter((line) => line.includes("ACK ERROR"));
      },
      async counter(filter) {
        const response = await fetch(
          `http://127.0.0.1:${ADMIN_PORT}/stats?filter=${encodeURIComponent(filter.source)}`,
        );
        const lines = (await response.text()).trim().split("\n");
        return lines.reduce((sum, line) => sum + (Number(line.split(": ")[1]) || 0), 0);
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function ok(url: string): Promise<void> {
  const response = await fetch(url);
  await response.text();
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
}

/** What the chart's routes are bound to: a gateway is the cluster's, not the chart's. */
const gateway = {
  apiVersion: "networking.istio.io/v1",
  kind: "Gateway",
  metadata: { name: "edge", namespace: "chat" },
  spec: {
    selector: GATEWAY_LABELS,
    servers: [8080, 80].map((number) => ({
      port: { number, name: `http2-${number}`, protocol: "HTTP2" },
      hosts: ["chat.example.test", "parley.chat.svc.cluster.local"],
    })),
  },
};

/** An Envoy that is told everything by istiod, as a gateway's proxy. */
function envoyBootstrap(): unknown {
  const http2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      explicit_http_config: { http2_protocol_options: {} },
    },
  };
  const address = (port: number) => ({ socket_address: { address: "127.0.0.1", port_value: port } });
  const ads = { ads: {}, resource_api_version: "V3", initial_fetch_timeout: "0s" };
  return {
    node: {
      id: `router~${NODE_IP}~edge.chat~chat.svc.cluster.local`,
      cluster: "edge.chat",
      metadata: {
        NAME: "edge",
        NAMESPACE: "chat",
        LABELS: GATEWAY_LABELS,
        ISTIO_VERSION: "1.31.0",
        CLUSTER_ID: "Kubernetes",
        INSTANCE_IPS: NODE_IP,
        MESH_ID: "cluster.local",
      },
    },
    admin: { address: address(ADMIN_PORT) },
    bootstrap_extensions: [
      {
        name: "envoy.bootstrap.internal_listener",
        typed_config: {
          "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        },
      },
    ],
    dynamic_resources: {
      lds_config: ads,
      cds_config: ads,
      ads_config: {
        api_type: "GRPC",
        transport_api_version: "V3",
        set_node_on_first_message_only: true,
        grpc_services: [{ envoy_grpc: { cluster_name: "istiod" } }],
      },
    },
    static_resources: {
      clusters: [
        {
          name: "istiod",
          type: "STATIC",
          typed_extension_protocol_options: http2,
          load_assignment: {
            cluster_name: "istiod",
            endpoints: [{ lb_endpoints: [{ endpoint: { address: address(XDS_PORT) } }] }],
          },
        },
      ],
    },
  };
}
