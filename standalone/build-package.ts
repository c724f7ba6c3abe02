import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { build } from "esbuild";

/** What a page has of these already is not there twice. */
const CONNECT = ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"];

/**
 * What the package has, by the name that users import: `parley/<name>`. `dependencies` are the packages that stay imports, and
 * are installed with it; all others become part of the file.
 */
const ENTRIES: Readonly<Record<string, { source: string; dependencies: readonly string[]; documentation: string }>> = {
  client: { source: "client/client.ts", dependencies: CONNECT, documentation: "docs/clients.md" },
  testing: { source: "src/testing.ts", dependencies: [], documentation: "docs/testing.md" },
};

/** The oldest Node that users may have, and the language of their browsers. */
const NODE = "22";
const LANGUAGE = "es2023";

// `npm run build:package`: the npm package of what users import, in `dist/package` or the folder that is given; `npm pack`
// makes the file of it. The service itself is no part of it: it has its own dependencies, and comes as an image.
const [folder = "dist/package"] = parseArgs({ allowPositionals: true }).positionals;
const root = join(import.meta.dirname, "..");
const project = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
const entries = Object.entries(ENTRIES);
const dependencies = [...new Set(entries.flatMap(([, entry]) => entry.dependencies))].sort();

await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
for (const [name, { source, dependencies: external }] of entries) {
  await build({
    entryPoints: [join(root, source)],
    outfile: join(folder, `${name}.js`),
    bundle: true,
    format: "esm",
    platform: "node",
    target: [`node${NODE}`, LANGUAGE],
    external: [...external],
    logLevel: "error",
  });
}
await declare();
await cp(join(root, "LICENSE"), join(folder, "LICENSE"));
const documentation = entries.map((entry) => readFile(join(root, entry[1].documentation), "utf8"));
await writeFile(join(folder, "README.md"), (await Promise.all(documentation)).join("\n"));
const { name, version, description, license } = project;
const manifest = {
  name,
  version,
  description,
  license,
  type: "module",
  sideEffects: false,
  engines: { node: `>=${NODE}` },
  exports: Object.fromEntries(
    entries.map(([entry, { source }]) => [
      `./${entry}`,
      { types: `./types/${source.replace(/\.ts$/, ".d.ts")}`, default: `./${entry}.js` },
    ]),
  ),
  dependencies: Object.fromEntries(dependencies.map((each) => [each, project.dependencies[each]])),
};
await writeFile(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);

/** Writes the declarations that the entries' own lead to, and no others. */
async function declare(): Promise<void> {
  const all = await mkdtemp(join(tmpdir(), "parley-types-"));
  try {
    const config = join(all, "tsconfig.json");
    const compilerOptions = {
      noEmit: false,
      declaration: true,
      emitDeclarationOnly: true,
      rootDir: root,
      outDir: all,
      types: ["node"],
      typeRoots: [join(root, "node_modules/@types")],
    };
    const files = entries.map(([, { source }]) => join(root, source));
    await writeFile(
      config,
      JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, files, include: [] }),
    );
    await promisify(execFile)(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", config]);
    const waiting = entries.map(([, { source }]) => source.replace(/\.ts$/, ".d.ts"));
    const known = new Set(waiting);
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      // What is declared by hand or generated is not written again. Inside the package a file's name ends as that of the JavaScript would.
      const written = await readFile(join(all, path), "utf8").catch(() => readFile(join(root, path), "utf8"));
      const text = written.replace(/(["']\.[^"']*)\.ts(["'])/g, "$1.js$2");
      const target = join(folder, "types", path);
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, text);
      for (const [, imported = ""] of text.matchAll(/["'](\.[^"']*)\.js["']/g)) {
        const next = `${join(dirname(path), imported)}.d.ts`;
        if (!known.has(next)) waiting.push(next);
        known.add(next);
      }
    }
  } finally {
    await rm(all, { recursive: true, force: true });
  }
}
