import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, symlink } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { grpcurlPath } from "../support/grpcurl.ts";
import { PROJECT } from "./image.ts";
import { startMesh } from "./mesh.ts";
import { controlPlane, helmBinary, istioctl } from "./mesh-tools.ts";
import { QUICK } from "./model-double.ts";

// `make mesh`: the mesh test's cluster, empty, for a release engineer's own hands. A shell in it, or what is piped in as its
// commands; the cluster ends with it. `yours.yaml` there is the values file that docs/operations speaks of.

const mesh = await startMesh();
try {
  // A version of which the gate says that it is worse.
  mesh.behave("registry.test/parley:0.6.1", { ...QUICK, promptTokens: 1_200 });
  const tools = join(mesh.folder, "bin");
  await mkdir(tools);
  const binaries = {
    kubectl: await controlPlane(),
    helm: await helmBinary(),
    istioctl: await istioctl(),
    grpcurl: await grpcurlPath(),
    parley: join(PROJECT, "bin/parley"),
  };
  for (const [name, path] of Object.entries(binaries)) await symlink(path, join(tools, name));
  await symlink(join(PROJECT, "helm"), join(mesh.folder, "helm"));
  await copyFile(mesh.valuesFile, join(mesh.folder, "yours.yaml"));
  const path = [tools, dirname(process.execPath), process.env.PATH].join(delimiter);
  const env = {
    ...process.env,
    PATH: path,
    KUBECONFIG: mesh.kubeconfig,
    HOME: mesh.folder,
    KEY: mesh.apiKey,
    GATEWAY: "chat.example.test:8080",
    PROMETHEUS: mesh.prometheus.url,
    PS1: "mesh$ ",
  };
  if (process.stdin.isTTY) {
    process.stdout.write(
      "kubectl, helm, istioctl, grpcurl and parley are there, $GATEWAY, $PROMETHEUS and $KEY too, and\n" +
        "images parley:0.5.0, 0.6.0 and 0.6.1 (which costs twice). Leave with exit.\n",
    );
  }
  const shell = spawn("bash", ["--norc"], { cwd: mesh.folder, env, stdio: "inherit" });
  const [code] = (await once(shell, "exit")) as [number | null];
  process.exitCode = code ?? 1;
} finally {
  await mesh.stop();
}
