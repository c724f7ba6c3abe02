import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";

// What can be known of the Dockerfile without Docker: that what its stages copy is enough for what they run.

const project = join(import.meta.dirname, "../..");
const IGNORED = /^(web\/dist|docs\/\.vitepress\/dist|examples\/.*\/(node_modules|gen|target|\.venv))$/;
const run = promisify(execFile);

interface Stage {
  readonly base: string;
  readonly name: string;
  /** Instructions, continued lines joined. */
  readonly lines: readonly string[];
}

let stages: Stage[];
beforeAll(async () => {
  const text = (await readFile(join(project, "Dockerfile"), "utf8")).replaceAll("\\\n", " ");
  const args = new Map([...text.matchAll(/^ARG (\w+)=(\S+)$/gm)].map(([, name, value]) => [name, value]));
  stages = text
    .split(/^FROM /m)
    .slice(1)
    .map((part) => {
      const [first = "", ...lines] = part.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
      const [base = "", , name = ""] = first.split(" ");
      return { base: base.replace(/^\$\{(\w+)\}$/, (_, arg: string) => args.get(arg) ?? ""), name, lines };
    });
});

/** Copies into an empty folder what a stage takes from the project, and gives it the packages of this one. */
async function folderOf({ lines }: Stage): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "parley-image-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const line of lines) {
    const words = line.split(/\s+/);
    if (words[0] !== "COPY" || words[1]?.startsWith("--from=") === true) continue;
    const target = words.at(-1) ?? "";
    for (const source of words.slice(1, -1)) {
      const to = target.endsWith("/") ? join(folder, target, source) : join(folder, target);
      // As .dockerignore has it.
      const filter = (path: string): boolean => !IGNORED.test(relative(project, path));
      await cp(join(project, source), to, { recursive: true, filter });
    }
  }
  await symlink(join(project, "node_modules"), join(folder, "node_modules"));
  return folder;
}

const last = (): Stage => stages.at(-1) ?? expect.unreachable();

test("bases are pinned to a release or are stages before them", () => {
  expect(stages.length).toBeGreaterThan(1);
  for (const [index, { base }] of stages.entries()) {
    const isStage = stages.slice(0, index).some(({ name }) => name === base);
    if (!isStage) expect(base).toMatch(/^debian:\d+\.\d+-slim$|@sha256:[0-9a-f]{64}$/);
  }
});

test("the last stage runs as a number that is not root's, without npm and dev dependencies", () => {
  const { lines } = last();
  expect(lines.filter((line) => line.startsWith("USER "))).toEqual([expect.stringMatching(/^USER [1-9]\d*:[1-9]\d*$/)]);
  expect(lines.join("\n")).not.toMatch(/\bnpm\b/);
  const modules = lines.find((line) => line.endsWith(" node_modules"));
  const from = /--from=(\w+)/.exec(modules ?? "")?.[1];
  expect(stages.find(({ name }) => name === from)?.lines.join("\n")).toContain("npm prune --omit=dev");
});

describe("what is copied suffices", () => {
  test("to build the console", async () => {
    const build = stages.find(({ lines }) => lines.includes("RUN npm run build:console")) ?? expect.unreachable();
    const folder = await folderOf(build);
    await run("npm", ["run", "--silent", "build:console"], { cwd: folder });
    expect((await stat(join(folder, "web/dist/index.html"))).isFile()).toBe(true);
  });

  test("to build the documentation", async () => {
    const build = stages.find(({ lines }) => lines.includes("RUN npm run build:docs")) ?? expect.unreachable();
    const folder = await folderOf(build);
    await run("npm", ["run", "--silent", "build:docs"], { cwd: folder });
    expect((await stat(join(folder, "docs/.vitepress/dist/index.html"))).isFile()).toBe(true);
    const stage = last().lines.find((line) => line.endsWith(" docs/.vitepress/dist"));
    expect(stage).toBe("COPY --from=production /parley/docs/.vitepress/dist docs/.vitepress/dist");
  });

  test("to start the service as the command does", async () => {
    const folder = await folderOf(last());
    const command = last().lines.find((line) => line.startsWith("CMD ")) ?? "";
    const [entry = ""] = JSON.parse(command.slice("CMD ".length)) as string[];
    const ended = await run(process.execPath, [entry], { cwd: folder, env: { PATH: dirname(process.execPath) } }).then(
      () => expect.unreachable(),
      (error: { code: number; stderr: string }) => error,
    );
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining("REDIS_URL is not set") });
  });
});
