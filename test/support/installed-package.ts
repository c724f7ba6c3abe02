import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const project = join(import.meta.dirname, "../..");
const run = promisify(execFile);

/**
 * Makes an empty project of a user's, with the package in it as npm packs and installs it. No registry is asked: what the
 * package depends on is installed from copies of what is here.
 */
export async function installPackage(): Promise<{ readonly folder: string; readonly archive: string }> {
  const folder = await mkdtemp(join(tmpdir(), "parley-user-"));
  const built = await mkdtemp(join(tmpdir(), "parley-package-"));
  try {
    await run(process.execPath, ["standalone/build-package.ts", join(built, "package")], { cwd: project });
    const { dependencies } = JSON.parse(await readFile(join(built, "package/package.json"), "utf8"));
    const copied = Object.keys(dependencies).map((name) => join(project, "node_modules", name));
    await run("npm", ["pack", "--pack-destination", built], { cwd: join(built, "package") });
    const archive = (await readdir(built)).find((name) => name.endsWith(".tgz")) ?? "";
    await writeFile(join(folder, "package.json"), '{ "private": true, "type": "module" }');
    const options = ["--offline", "--install-links", "--ignore-scripts", "--no-audit", "--no-fund"];
    await run("npm", ["install", ...options, join(built, archive), ...copied], { cwd: folder });
    return { folder, archive };
  } finally {
    await rm(built, { recursive: true, force: true });
  }
}
