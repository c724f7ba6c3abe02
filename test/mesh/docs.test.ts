import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSnippets, type Snippet } from "../docs/snippets.ts";
import { grpcurlPath } from "../support/grpcurl.ts";
import { DOCUMENTED_COMMANDS, type DocumentedCommands } from "./documented-commands.ts";
import { PROJECT } from "./image.ts";
import { type Mesh, startMesh } from "./mesh.ts";
import { controlPlane, helmBinary } from "./mesh-tools.ts";
import { NODE_IP } from "./pod-network.ts";

// The commands of docs/operations as a release engineer types them, one block after the other, in one cluster.

const snippets = readSnippets();

let mesh: Mesh;
let folder: string;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  mesh = await startMesh();
  folder = join(mesh.folder, "engineer");
  const tools = join(folder, "tools");
  await mkdir(tools, { recursive: true });
  const binaries = { kubectl: await controlPlane(), helm: await helmBinary(), grpcurl: await grpcurlPath() };
  for (const [name, path] of Object.entries(binaries)) await symlink(path, join(tools, name));
  for (const name of ["helm", "bin"]) await symlink(join(PROJECT, name), join(folder, name));
  await writeFile(join(folder, "yours.yaml"), await readFile(mesh.valuesFile, "utf8"));
  const canary = snippets.find(({ document, language }) => document.endsWith("/canary.md") && language === "yaml");
  await writeFile(join(folder, "canary.yaml"), canary?.code ?? "");
  env = {
    ...process.env,
    PATH: [tools, dirname(process.execPath), process.env.PATH].join(delimiter),
    KUBECONFIG: mesh.kubeconfig,
    HOME: mesh.folder,
    KEY: mesh.apiKey,
    PROMETHEUS: mesh.prometheus.url,
    REDIS_URL: `redis://${NODE_IP}:${mesh.redis.port}`,
  };
});
afterAll(() => mesh?.stop());

/** Variables that blocks leave to those after them. */
let left = "";

async function run({ code }: Snippet, { inPlaceOf = {}, first = "" }: DocumentedCommands): Promise<string> {
  let commands = code;
  for (const [example, own] of Object.entries(inPlaceOf)) {
    expect(commands).toContain(example);
    commands = commands.replaceAll(example, own);
  }
  const text = [left, first, commands].join("\n");
  if (/^\w+='/.test(commands)) left = commands;
  const { stdout } = await promisify(execFile)("bash", ["-euo", "pipefail", "-c", text], { cwd: folder, env }).catch(
    (error: { stdout: string; stderr: string }) => expect.unreachable(`${text}\n${error.stdout}${error.stderr}`),
  );
  return stdout;
}

describe("a release engineer types what", () => {
  test.each(DOCUMENTED_COMMANDS)("$document says: $begins", async (commands) => {
    const found = snippets.filter(
      ({ document, language, code }) =>
        document === commands.document && language === "sh" && code.startsWith(commands.begins),
    );
    expect(found).toHaveLength(1);
    const [snippet = expect.unreachable()] = found;
    if (snippet.code.includes("grpcurl")) await mesh.routed();
    expect(await run(snippet, commands)).toMatch(commands.prints ?? /^/);
  });
});
