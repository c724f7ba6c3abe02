import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { exists, goModuleFolder, goTool, TOOL_CACHE } from "./go-tools.ts";

/** What the renders are checked against. Files of Go modules: kubeconform's own schemas are on a site that CI may not reach. */
const KUBERNETES = { module: "k8s.io/kubernetes", version: "v1.37.2", file: "api/openapi-spec/swagger.json" };
const CUSTOM_RESOURCES = [
  { module: "istio.io/api", version: "v1.31.4", files: ["kubernetes/customresourcedefinitions.gen.yaml"] },
  {
    module: "github.com/prometheus-operator/prometheus-operator",
    version: "v0.85.0",
    files: ["alertmanagers", "podmonitors", "prometheusrules"].map(
      (name) => `example/prometheus-operator-crd/monitoring.coreos.com_${name}.yaml`,
    ),
  },
  { module: "github.com/kedacore/keda/v2", version: "v2.21.0", files: ["config/crd/bases/keda.sh_scaledobjects.yaml"] },
  { module: "github.com/fluxcd/flagger", version: "v1.36.1", files: ["artifacts/flagger/crd.yaml"] },
  {
    module: "github.com/argoproj/argo-rollouts",
    version: "v1.9.0",
    files: ["rollout-crd.yaml", "analysis-template-crd.yaml"].map((name) => `manifests/crds/${name}`),
  },
];

export const KUBECONFORM = {
  name: "kubeconform",
  package: "github.com/yannh/kubeconform/cmd/kubeconform",
  version: "v0.8.0",
};

type Schema = { [key: string]: unknown };

/**
 * Arguments with which kubeconform checks files against Kubernetes' own OpenAPI and the custom resources' schemas, unknown
 * fields refused. The schemas are written to the cache first where they are missing.
 */
export async function kubeconform(): Promise<{ readonly binary: string; readonly args: readonly string[] }> {
  const binary = await goTool(KUBECONFORM);
  const versions = [KUBERNETES, ...CUSTOM_RESOURCES].map(({ version }) => version).join("_");
  const folder = join(TOOL_CACHE, "kubernetes-schemas", `3_${versions}`);
  if (!(await exists(folder))) await writeSchemas(folder);
  const location = join(folder, "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json");
  return { binary, args: ["-schema-location", location, "-summary"] };
}

async function writeSchemas(folder: string): Promise<void> {
  const writing = `${folder}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(writing, { recursive: true });
  const write = (kind: string, group: string, version: string, schema: Schema): Promise<void> =>
    writeFile(join(writing, `${kind.toLowerCase()}-${group || version}-${version}.json`), JSON.stringify(schema));
  try {
    const swagger = join(await goModuleFolder(KUBERNETES.module, KUBERNETES.version), KUBERNETES.file);
    const { definitions } = JSON.parse(await readFile(swagger, "utf8")) as { definitions: Record<string, Schema> };
    for (const definition of Object.values(definitions)) {
      const kinds = (definition["x-kubernetes-group-version-kind"] ?? []) as Record<string, string>[];
      const [only] = kinds;
      if (only === undefined || kinds.length !== 1) continue;
      const { group = "", version = "", kind = "" } = only;
      if (WANTED_GROUPS.has(group)) await write(kind, group, version, strict(definition, definitions));
    }
    for (const { module, version, files } of CUSTOM_RESOURCES) {
      const from = await goModuleFolder(module, version);
      for (const file of files) {
        for (const document of parseAllDocuments(await readFile(join(from, file), "utf8"))) {
          const definition = document.toJS() as CustomResourceDefinition | null;
          if (definition?.kind !== "CustomResourceDefinition") continue;
          const { group, names, versions } = definition.spec;
          for (const served of versions)
            await write(names.kind, group, served.name, asObject(strict(served.schema.openAPIV3Schema, {})));
        }
      }
    }
    await rename(writing, folder).catch(async (error: unknown) => {
      // Another process was faster.
      if (!(await exists(folder))) throw error;
    });
  } finally {
    await rm(writing, { recursive: true, force: true });
  }
}

interface CustomResourceDefinition {
  readonly kind: string;
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly schema: { readonly openAPIV3Schema: Schema } }[];
  };
}

const WANTED_GROUPS = new Set(["", "apps", "autoscaling", "batch", "policy", "networking.k8s.io"]);

/** The schema with its references resolved and unknown fields refused, as the API server's strict validation does. */
function strict(schema: Schema, definitions: Record<string, Schema>, within: readonly string[] = []): Schema {
  const reference = schema.$ref;
  if (typeof reference === "string") {
    const name = reference.replace("#/definitions/", "");
    if (name.endsWith(".IntOrString")) return { type: ["integer", "string"] };
    if (name.endsWith(".Quantity")) return { type: ["number", "string"] };
    const target = definitions[name];
    // A type within itself is JSON schema's own; none is in a chart.
    if (target === undefined || within.includes(name)) return {};
    return strict(target, definitions, [...within, name]);
  }
  const next = (inner: unknown): Schema => strict(inner as Schema, definitions, within);
  const { properties, items, additionalProperties, ...rest } = schema;
  const made: Schema = { ...rest };
  if (schema["x-kubernetes-int-or-string"] === true) delete made.type;
  // Go's formats are no JSON schema formats.
  delete made.format;
  if (items !== undefined) made.items = next(items);
  if (typeof additionalProperties === "object") made.additionalProperties = next(additionalProperties);
  if (properties !== undefined) {
    made.properties = Object.fromEntries(
      Object.entries(properties as Schema).map(([key, value]) => [key, next(value)]),
    );
    const open = schema["x-kubernetes-preserve-unknown-fields"] === true || additionalProperties !== undefined;
    if (!open) made.additionalProperties = false;
  }
  return made;
}

/** Every custom object has these three, whether its schema says so or not. */
function asObject(schema: Schema): Schema {
  const common = { apiVersion: { type: "string" }, kind: { type: "string" }, metadata: { type: "object" } };
  return { ...schema, properties: { ...common, ...(schema.properties as Schema) } };
}

if (import.meta.main) await kubeconform();
