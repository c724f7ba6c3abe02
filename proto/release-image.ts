import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { packageVersion } from "../src/package-facts.ts";

// `npm run release:proto`: keeps this release's protos as a buf image, which later ones must not break.
const image = join(import.meta.dirname, "released", `v${packageVersion()}.binpb`);
execFileSync("buf", ["build", "--exclude-source-info", "--output", image], { stdio: "inherit" });
