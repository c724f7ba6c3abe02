import { execFile } from "node:child_process";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { installPackage } from "../support/installed-package.ts";
import { startTestApp } from "../support/parley-app.ts";

// The package as users have it: packed by npm, installed in an empty folder without a registry, and used there.

const project = join(import.meta.dirname, "../..");
const run = promisify(execFile);
/** The tests' own runner must not be found by that of the example. */
const { NODE_TEST_CONTEXT: _, ...environment } = process.env;

let folder: string;
let archive: string;
let docs: string;
beforeAll(async () => {
  ({ folder, archive } = await installPackage());
  docs = await readFile(join(project, "docs/testing.md"), "utf8");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function example(language: string): string {
  const [, code = ""] = new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``).exec(docs) ?? [];
  return code;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : expect.unreachable();
}

test("it has JavaScript, declarations, a licence and what it is for, and brings what its client needs", async () => {
  const { version } = JSON.parse(await readFile(join(project, "package.json"), "utf8"));
  expect(archive).toBe(`parley-${version}.tgz`);
  const files = (await readdir(join(folder, "node_modules/parley"))).sort();
  expect(files).toEqual(["LICENSE", "README.md", "client.js", "package.json", "testing.js", "types"]);
  const packages = await readdir(join(folder, "node_modules"));
  expect(packages.filter((name) => !name.startsWith(".")).sort()).toEqual(["@bufbuild", "@connectrpc", "parley"]);
  expect((await readdir(join(folder, "node_modules/@connectrpc"))).sort()).toEqual(["connect", "connect-web"]);
});

test("the scripted model imports nothing but what Node has", async () => {
  const { metafile } = await build({
    entryPoints: [join(folder, "node_modules/parley/testing.js")],
    bundle: true,
    format: "esm",
    platform: "node",
    packages: "external",
    metafile: true,
    write: false,
  });
  const imported = Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  expect(imported).toEqual(["node:http"]);
});

test("the documented example passes against the service, with the documented parley.yaml", async () => {
  const port = await freePort();
  const app = await startTestApp({
    yaml: example("yaml"),
    env: { OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` },
  });
  onTestFinished(() => app.close());
  await writeFile(join(folder, "review.test.mjs"), example("js"));
  const env = { ...environment, PARLEY_URL: app.url, MODEL_PORT: String(port) };
  const { stdout } = await run(process.execPath, ["--test", "--test-reporter=tap"], { cwd: folder, env });
  expect(stdout).toContain("# tests 2");
  expect(stdout).toContain("# pass 2");
  expect(stdout).toContain("# fail 0");
});

test("its declarations stand by themselves, and know what a script may have", async () => {
  const code = `
import { type ScriptedCall, type ScriptedModel, startScriptedModel } from "parley/testing";
const script: readonly ScriptedCall[] = [{ expect: { last: "a" }, toolCalls: [{ name: "t" }] }];
const model: ScriptedModel = await startScriptedModel(script, { repeat: true });
model.verify();
// @ts-expect-error: it is called text
await startScriptedModel([{ reply: "b" }]);
`;
  await writeFile(join(folder, "use.ts"), code);
  const flags = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "", "use.ts"];
  const tsc = join(project, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, ...flags], { cwd: folder }).catch(({ stdout }: { stdout: string }) =>
    expect.fail(stdout),
  );
});
