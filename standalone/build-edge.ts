import { parseArgs } from "node:util";
import { build } from "esbuild";

/** CommonJS packages require Node's modules, which `nodejs_compat` has; `process` it has as a global only. */
const REQUIRE = `import { createRequire } from "node:module";
const requireOfNode = createRequire("/");
const require = (name) => (/^(node:)?process$/.test(name) ? globalThis.process : requireOfNode(name));`;

// `npm run build:edge`: the edge entry as one module for workerd, `dist/edge.js` or the path that is given.
const [outfile = "dist/edge.js"] = parseArgs({ allowPositionals: true }).positionals;
await build({
  entryPoints: [new URL("../src/edge.ts", import.meta.url).pathname],
  outfile,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "esnext",
  conditions: ["workerd", "worker"],
  external: ["node:*", "cloudflare:*"],
  logLevel: "warning",
  banner: { js: REQUIRE },
});
