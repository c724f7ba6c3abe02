import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { startRedisServer } from "../support/redis-server.ts";

// The image as test/image/build.sh builds it. Its programs run in a chroot, as the user that it names.

const project = join(import.meta.dirname, "../..");
const run = promisify(execFile);
const USER = "65532:65532";

let out: string;
let rootfs: string;
beforeAll(async () => {
  const { stdout } = await run(join(import.meta.dirname, "build.sh"), { maxBuffer: 256 * 1024 * 1024 });
  out = stdout.trim();
  rootfs = join(out, "rootfs");
});

interface ImageConfig {
  readonly User: string;
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly WorkingDir: string;
}

async function config(): Promise<ImageConfig> {
  const image = JSON.parse(await readFile(join(out, "image.json"), "utf8")) as { OCIv1: { config: ImageConfig } };
  return image.OCIv1.config;
}

/** Command and environment of the image in its file system, with the given arguments in place of its own. */
async function inside(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { Entrypoint, Cmd, Env, WorkingDir } = await config();
  const command = [...Entrypoint, ...(args.length === 0 ? Cmd : args)].map((word) => `'${word}'`).join(" ");
  return {
    command: "chroot",
    args: [`--userspec=${USER}`, rootfs, "/bin/sh", "-c", `cd ${WorkingDir} && exec ${command}`],
    env: { ...Object.fromEntries(Env.map((line) => line.split(/=(.*)/s).slice(0, 2))), ...env } as Record<
      string,
      string
    >,
  };
}

async function runInside(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { command, args: words, env: variables } = await inside(args, env);
  return run(command, words, { env: variables }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
}

test("it runs as a user without a name, and as Node of the version that package.json names", async () => {
  expect((await config()).User).toBe(USER);
  const { devDependencies } = JSON.parse(await readFile(join(project, "package.json"), "utf8"));
  expect(await runInside(["--version"])).toMatchObject({ code: 0, stdout: `v${devDependencies.node}\n` });
});

test("its command is the service, which says what it lacks", async () => {
  expect(await runInside([])).toMatchObject({ code: 2, stderr: expect.stringContaining("ALLOW_UNAUTHENTICATED") });
  expect(await runInside([], { HOST: "127.0.0.1" })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("REDIS_URL is not set"),
  });
});

test("the sidecar is in it, and says what it lacks", async () => {
  expect(await runInside(["sidecar/main.ts"], { HOST: "127.0.0.1" })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("REDIS_URL: must be set"),
  });
});

test("it answers a turn on a Redis, and shows its page", async () => {
  const redis = await startRedisServer();
  onTestFinished(() => redis.stop());
  const model = await startSimulatedModel();
  onTestFinished(() => model.close());
  const { command, args, env } = await inside([], {
    HOST: "127.0.0.1",
    PORT: "0",
    OPS_PORT: "0",
    REDIS_URL: redis.url,
    OPENAI_BASE_URL: model.baseUrl,
  });
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(async () => {
    // tini passes it on; killed itself, it would leave the service behind.
    child.kill("SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  });
  let output = "";
  for await (const chunk of child.stdout) {
    output += String(chunk);
    if (output.includes('"serving"')) break;
  }
  const url = /"url":"([^"]+)"/.exec(output)?.[1] ?? expect.unreachable(output);
  const response = await fetch(`${url}/parley.chat.v1.ChatService/Chat`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ message: "hello", userId: "u1" }),
  });
  expect(await response.json()).toMatchObject({ response: expect.stringContaining("hello") });
  expect((await fetch(url)).headers.get("content-type")).toContain("text/html");
});

test("no npm, compiler or dev dependency is in it, and nothing that a user may write or gain root by", async () => {
  for (const path of ["usr/bin/npm", "usr/bin/gcc", "parley/node_modules/vitest", "parley/node_modules/typescript"])
    expect(existsSync(join(rootfs, path)), path).toBe(false);
  const { stdout } = await run("find", [
    join(rootfs, "parley"),
    "(",
    "-perm",
    "-o+w",
    "!",
    "-type",
    "l",
    ")",
    "-o",
    "-uid",
    "65532",
  ]);
  expect(stdout).toBe("");
});

test("the authorities of the building machine are not in it", async () => {
  expect(existsSync(join(rootfs, "run/authorities.crt"))).toBe(false);
  expect((await config()).Env.filter((line) => /CA|CERT/.test(line))).toEqual([]);
});

test("the bill of materials lists the packages that are in it, with their versions, and no others", async () => {
  const bill = JSON.parse(await readFile(join(out, "sbom.cdx.json"), "utf8")) as {
    components: { name: string; version: string; purl: string }[];
  };
  const listed = (type: string): string[] =>
    bill.components
      .filter(({ purl }) => purl.startsWith(`pkg:${type}/`))
      .map(({ name, version }) => `${name}@${version}`)
      .toSorted();
  const { stdout: manifests } = await run("find", [join(rootfs, "parley/node_modules"), "-name", "package.json"]);
  const packages = manifests.split("\n").filter((path) => /node_modules\/(@[^/]+\/)?[^/@]+\/package\.json$/.test(path));
  const installed = await Promise.all(
    packages.map(async (path) => {
      const { name, version } = JSON.parse(await readFile(path, "utf8"));
      return `${name}@${version}`;
    }),
  );
  expect(installed.length).toBeGreaterThan(50);
  expect(listed("npm")).toEqual([...new Set(installed)].toSorted());

  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own
  const { stdout: debian } = await run("chroot", [rootfs, "dpkg-query", "-W", "-f", "${Package}@${Version}\n"]);
  expect(listed("deb")).toEqual(debian.trim().split("\n").toSorted());
  expect(debian).toMatch(/^tini@/m);
});

test("it is small", async () => {
  // MiB of files: Debian 120, Node 120, packages and console the rest.
  expect(Number(await readFile(join(out, "size"), "utf8"))).toBeLessThan(420);
});
