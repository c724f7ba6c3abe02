import { defineConfig } from "vitest/config";

// The chart on a real control plane, istiod and Envoy, its pods real processes: `make test-mesh`, as root.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/mesh/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-mesh-results.json" }]],
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // One cluster at a time: they share ports and the bridge.
    maxWorkers: 1,
    fileParallelism: false,
  },
});
