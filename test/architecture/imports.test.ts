import { readFileSync } from "node:fs";
import { glob } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

/** What each part may import of the project. Files directly in `src` are named; `src` files know each other one way. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  "src/failure.ts": ["gen"],
  "src/engine": ["gen", "src/failure.ts"],
  "src/identity": ["gen", "src/failure.ts", "src/store", "src/platform"],
  "src/accounts": ["gen", "src/failure.ts", "src/store"],
  "src/platform": [],
  "src/turns": ["gen", "src/failure.ts", "src/engine", "src/accounts", "src/platform"],
  "src/store": ["gen", "src/failure.ts", "src/turns"],
  "src/providers": ["gen", "src/failure.ts", "src/engine", "src/platform"],
  "src/rpc": ["gen", "src/failure.ts", "src/identity", "src/platform", "src/turns"],
  "src/parley-yaml.ts": ["src/engine", "src/accounts", "src/tools"],
  "src/tools": ["gen", "src/engine", "src/platform"],
  "src/config.ts": [
    "src/engine",
    "src/tools",
    "src/parley-yaml.ts",
    "src/accounts",
    "src/identity",
    "src/platform",
    "src/store",
  ],
  "src/package-facts.ts": [],
};

/** What the sidecar may import of the service: state, identity, and of the RPC layer what every port has. */
const ofService: readonly RegExp[] = [
  /^gen\//,
  /^sidecar\//,
  /^src\/(platform|accounts|store|identity)\//,
  /^src\/(failure|package-facts)\.ts$/,
  /^src\/rpc\/(http-server|routes|interceptors|metrics-observer|error-table|error-mapping|call-context|health-handlers|reflection-handlers)\.ts$/,
];

/** Packages that only some parts may know. */
const packages: Readonly<Record<string, readonly string[]>> = {
  "@connectrpc/connect": ["src/rpc"],
  "@connectrpc/connect-node": ["src/rpc"],
  ioredis: ["src/store"],
  openai: ["src/providers"],
  opossum: ["src/platform"],
  "@modelcontextprotocol/sdk": ["src/tools"],
  undici: ["src/providers"],
  jose: ["src/identity"],
  "@pydantic/genai-prices": ["src/accounts"],
};

interface Import {
  readonly file: string;
  readonly target: string;
}

async function importsOf(pattern: string): Promise<Import[]> {
  const found: Import[] = [];
  for await (const file of glob(pattern, { cwd: root })) {
    const text = readFileSync(join(root, file), "utf8");
    for (const [, target = ""] of text.matchAll(/^(?:import|export)\b[^"]*?from "([^"]+)"|^import "([^"]+)"/gm)) {
      const inside = target.startsWith(".");
      found.push({ file, target: inside ? relative(root, join(root, dirname(file), target)) : target });
    }
  }
  return found;
}

/** The part that a file belongs to: `src/rpc`, `src/config.ts`, `gen`, `web` … */
function partOf(path: string): string {
  const [top = "", second = ""] = path.split("/");
  return top === "src" ? `${top}/${second}` : top;
}

test("imports go one way", async () => {
  const imports = (await importsOf("src/**/*.ts")).filter(({ target }) =>
    /^(src|gen|client|sidecar|standalone|web|test)\//.test(target),
  );
  expect(imports.length).toBeGreaterThan(100);
  const wrong = imports.filter(({ file, target }) => {
    const part = partOf(file);
    const may = allowed[part];
    return may !== undefined && partOf(target) !== part && !may.includes(partOf(target));
  });
  expect(wrong).toEqual([]);
});

test("src imports nothing of the client, the sidecar, the standalone, the console or the tests", async () => {
  const imports = await importsOf("src/**/*.ts");
  expect(imports.filter(({ target }) => /^(client|sidecar|standalone|web|test|bench)\//.test(target))).toEqual([]);
});

test("the sidecar imports of the service what every process has, and nothing of turns and models", async () => {
  const imports = (await importsOf("sidecar/**/*.ts")).filter(({ target }) =>
    /^(src|gen|sidecar|standalone|web|test)\//.test(target),
  );
  expect(imports.length).toBeGreaterThan(10);
  expect(imports.filter(({ target }) => !ofService.some((may) => may.test(target)))).toEqual([]);
});

test("the client imports generated code and packages that browsers have", async () => {
  const imports = (await importsOf("client/**/*.ts")).map(({ target }) => target);
  expect(imports.length).toBeGreaterThan(10);
  expect(
    imports.filter((target) => !/^(client|gen)\/|^@bufbuild\/protobuf$|^@connectrpc\/connect(-web)?$/.test(target)),
  ).toEqual([]);
});

test("Connect, Redis and the model client are known to one part each", async () => {
  const wrong = (await importsOf("src/**/*.ts")).filter(({ file, target }) => {
    const name = target
      .split("/")
      .slice(0, target.startsWith("@") ? 2 : 1)
      .join("/");
    const may = packages[name];
    return may !== undefined && !may.includes(partOf(file));
  });
  expect(wrong).toEqual([]);
});

test("no file has grown past what a reader holds in mind", async () => {
  const long: string[] = [];
  for await (const file of glob("src/**/*.ts", { cwd: root })) {
    const lines = readFileSync(join(root, file), "utf8").split("\n").length;
    if (lines > 600) long.push(`${file}: ${lines} lines`);
  }
  expect(long).toEqual([]);
});
