import { execFile } from "node:child_process";
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { parseArgs, promisify } from "node:util";
import facts from "../package.json" with { type: "json" };

/** What programs of others import as `parley/<name>`. */
const ENTRIES: Readonly<Record<string, string>> = {
  client: "client/client.ts",
};

const project = join(import.meta.dirname, "..");

// `npm run build:package`: the package that `npm pack ./dist/package` packs, or the folder that is given: js and d.ts of the
// entries and all that they import, and a package.json with the dependencies that they have, which are few of the service's.
const [folder = join(project, "dist/package")] = parseArgs({ allowPositionals: true }).positionals;
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
const config = join(folder, "tsconfig.json");
await writeFile(
  config,
  JSON.stringify({
    extends: join(project, "tsconfig.json"),
    compilerOptions: {
      noEmit: false,
      declaration: true,
      rewriteRelativeImportExtensions: true,
      target: "es2023",
      types: [join(project, "node_modules/@types/node")],
      rootDir: project,
      outDir: folder,
    },
    include: [],
    files: Object.values(ENTRIES).map((file) => join(project, file)),
  }),
);
const tsc = join(project, "node_modules/.bin/tsc");
const { stdout } = await promisify(execFile)(tsc, ["-p", config, "--listFiles"], { maxBuffer: 2 ** 24 }).catch(
  (error: { stdout?: string }) => {
    throw new Error(`the package does not compile:\n${error.stdout}`, { cause: error });
  },
);
await rm(config);
const read = stdout.split("\n").map((path) => relative(project, path));

// What protoc-gen-es has written is js and d.ts already.
for (const file of read.filter((path) => path.startsWith("gen/"))) {
  await mkdir(join(folder, dirname(file)), { recursive: true });
  for (const each of [file, file.replace(/\.d\.ts$/, ".js")]) await cp(join(project, each), join(folder, each));
}

const imported = new Set(read.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []));
const dependencies = Object.entries(facts.dependencies).filter(([name]) => imported.has(name));
const { name, version, description, license } = facts;
await writeFile(
  join(folder, "package.json"),
  JSON.stringify(
    {
      name,
      version,
      description,
      license,
      type: "module",
      sideEffects: false,
      exports: Object.fromEntries(
        Object.entries(ENTRIES).map(([entry, file]) => [
          `./${entry}`,
          { types: `./${file.replace(/\.ts$/, ".d.ts")}`, default: `./${file.replace(/\.ts$/, ".js")}` },
        ]),
      ),
      dependencies: Object.fromEntries(dependencies),
    },
    undefined,
    2,
  ),
);
await cp(join(project, "LICENSE"), join(folder, "LICENSE"));
