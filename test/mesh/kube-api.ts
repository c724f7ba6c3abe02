import { Agent, request } from "undici";

/** A Kubernetes object, as far as tests look into it. */
// biome-ignore lint/suspicious/noExplicitAny: what is read of it is checked by what is expected of it
export type Manifest = any;

/** The API server refused. */
export class KubeError extends Error {
  override readonly name = "KubeError";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface ApplyOptions {
  /** Who writes; conflicts are between two of them. */
  readonly manager: string;
  /** Takes fields of other managers over. */
  readonly force?: boolean;
  /** Changes nothing. */
  readonly dryRun?: boolean;
}

/** A client of one API server. Every call rejects with {@link KubeError} where that refuses. */
export interface KubeApi {
  get(path: string): Promise<Manifest>;
  list(path: string): Promise<Manifest[]>;
  post(path: string, body: unknown): Promise<Manifest>;
  /** Strategic merge patch. */
  patch(path: string, body: unknown): Promise<Manifest>;
  /** JSON merge patch, as another manager. */
  mergePatch(path: string, body: unknown, manager: string): Promise<Manifest>;
  delete(path: string): Promise<Manifest>;
  /** Server-side apply, unknown fields refused. */
  apply(object: Manifest, options: ApplyOptions): Promise<Manifest>;
}

export function kubeApi({ url, token, ca }: { url: string; token: string; ca: string }): KubeApi {
  const dispatcher = new Agent({ connect: { ca, servername: "kubernetes" }, connections: 16 });
  const call = async (method: string, path: string, body?: unknown, type = "application/json"): Promise<Manifest> => {
    const answer = await request(`${url}${path}`, {
      method: method as "GET",
      dispatcher,
      headers: { authorization: `Bearer ${token}`, "content-type": type },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const value = (await answer.body.json()) as Manifest;
    if (answer.statusCode >= 400) throw new KubeError(answer.statusCode, value.message ?? `HTTP ${answer.statusCode}`);
    return value;
  };
  return {
    get: (path) => call("GET", path),
    list: async (path) => (await call("GET", path)).items,
    post: (path, body) => call("POST", path, body),
    patch: (path, body) => call("PATCH", path, body, "application/strategic-merge-patch+json"),
    mergePatch: (path, body, manager) =>
      call("PATCH", `${path}?fieldManager=${manager}`, body, "application/merge-patch+json"),
    delete: (path) => call("DELETE", path),
    apply(object, { manager, force = false, dryRun = false }) {
      const query = `fieldManager=${manager}&force=${force}&fieldValidation=Strict${dryRun ? "&dryRun=All" : ""}`;
      return call("PATCH", `${pathOf(object)}?${query}`, object, "application/apply-patch+yaml");
    },
  };
}

/** Kinds without a namespace, and those whose plural is not their name with an s. */
const CLUSTER_KINDS = new Set(["Namespace", "Node", "CustomResourceDefinition"]);
const PLURALS: Readonly<Record<string, string>> = { NetworkPolicy: "networkpolicies" };

/** Where an object is. */
function pathOf({ apiVersion, kind, metadata }: Manifest): string {
  const group = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const plural = PLURALS[kind] ?? `${kind.toLowerCase()}s`;
  const namespace = CLUSTER_KINDS.has(kind) ? "" : `/namespaces/${metadata.namespace ?? "chat"}`;
  return `${group}${namespace}/${plural}/${metadata.name}`;
}
