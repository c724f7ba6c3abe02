import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { parse } from "yaml";

// `make example-go`, and so on: brings the plugins of a language from its own registry, once for all checkouts, and runs
// that language's part of buf.gen.yaml.

interface Template {
  readonly plugins: readonly { readonly out: string }[];
}

/** Where plugins are kept between runs and checkouts: building them takes minutes. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "parley/plugins");

const EXAMPLES = import.meta.dirname;

const GO_PLUGINS = [
  "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
  "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
  "connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1",
];

const RUST_PLUGINS = ["protoc-gen-prost@0.5.0", "protoc-gen-tonic@0.5.0"];

/** Executables for this machine, as Maven Central names them. */
const JAVA_PLUGINS = [
  { program: "protoc", artifact: "com.google.protobuf:protoc:4.36.2" },
  { program: "protoc-gen-grpc-java", artifact: "io.grpc:protoc-gen-grpc-java:1.83.1" },
];

/** Folder of a language's plugins, to stand on the PATH. */
const pluginFolders: Readonly<Record<string, () => string>> = {
  go: () =>
    built("go", GO_PLUGINS, (folder) => {
      for (const plugin of GO_PLUGINS) run("go", ["install", plugin], { GOBIN: folder, CGO_ENABLED: "0" });
    }),
  python() {
    const folder = join(EXAMPLES, "python/.venv/bin");
    if (!existsSync(folder)) throw new Error("Make python/.venv first, as python/README.md says.");
    return folder;
  },
  java: () =>
    built(
      "java",
      JAVA_PLUGINS.map(({ artifact }) => artifact),
      (folder) => {
        const machine = `linux-${process.arch === "arm64" ? "aarch_64" : "x86_64"}`;
        for (const { program, artifact } of JAVA_PLUGINS) {
          const [, name, version] = artifact.split(":");
          const what = [`-Dartifact=${artifact}:exe:${machine}`, `-DoutputDirectory=${folder}`];
          run("mvn", ["--batch-mode", "--quiet", "dependency:copy", ...what]);
          renameSync(join(folder, `${name}-${version}-${machine}.exe`), join(folder, program));
          chmodSync(join(folder, program), 0o755);
        }
      },
    ),
  rust: () =>
    join(
      built("rust", RUST_PLUGINS, (folder) => {
        for (const plugin of RUST_PLUGINS)
          run("cargo", ["install", "--quiet", "--locked", "--debug", "--root", folder, plugin]);
      }),
      "bin",
    ),
  node: projectPrograms,
  browser: projectPrograms,
};

/** protoc-gen-es is a dependency of the project's own. */
function projectPrograms(): string {
  run("node", [join(EXAMPLES, "../proto/bring-vendored.ts")]);
  return join(EXAMPLES, "../node_modules/.bin");
}

const language = process.argv[2] ?? "";
const pluginFolder = pluginFolders[language]?.();
if (pluginFolder === undefined) throw new Error(`Name a language: ${Object.keys(pluginFolders).join(", ")}.`);
rmSync(join(EXAMPLES, language, "gen"), { recursive: true, force: true });
for (const file of ["buf.gen.yaml", "buf.gen.details.yaml"]) {
  const template = parse(readFileSync(join(EXAMPLES, file), "utf8")) as Template;
  const plugins = template.plugins.filter(({ out }) => out.startsWith(`${language}/`));
  if (plugins.length === 0) continue;
  run("buf", ["generate", "--template", JSON.stringify({ ...template, plugins })], {
    PATH: `${pluginFolder}${delimiter}${process.env.PATH}`,
  });
}

/** The folder that `build` has filled with just these plugins, now or in an earlier run. */
function built(of: string, plugins: readonly string[], build: (folder: string) => void): string {
  const kept = join(CACHE, `${of}-${plugins.map((plugin) => /[^@:v]+$/.exec(plugin)?.[0]).join("-")}`);
  if (existsSync(kept)) return kept;
  // Several runs may build at a time; each renames what it has built, and the first one wins.
  const folder = `${kept}.${process.pid}`;
  mkdirSync(folder, { recursive: true });
  try {
    build(folder);
    if (!existsSync(kept)) renameSync(folder, kept);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return kept;
}

function run(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): void {
  execFileSync(program, args, { cwd: EXAMPLES, env: { ...process.env, ...env }, stdio: ["ignore", 2, 2] });
}
