import { copyFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

// Brings the protos that others own from the packages that ship them, so that only code generated from them stands here.
// `buf generate` reads them from `node_modules/.parley-protos`.

const require = createRequire(import.meta.url);
const packageFolder = (name: string): string => dirname(require.resolve(`${name}/package.json`));
const target = join(import.meta.dirname, "../node_modules/.parley-protos");

const protos = [
  {
    from: [packageFolder("google-proto-files"), "google/rpc/error_details.proto"],
    to: "google/rpc/error_details.proto",
  },
  { from: [packageFolder("grpc-health-check"), "proto/health/v1/health.proto"], to: "grpc/health/v1/health.proto" },
  ...["v1", "v1alpha"].map((version) => ({
    from: [packageFolder("@grpc/reflection"), `build/proto/grpc/reflection/${version}/reflection.proto`],
    to: `grpc/reflection/${version}/reflection.proto`,
  })),
];

for (const { from, to } of protos) {
  mkdirSync(dirname(join(target, to)), { recursive: true });
  copyFileSync(join(...(from as [string, string])), join(target, to));
}
