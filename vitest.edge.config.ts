import { defineConfig } from "vitest/config";

// What runs elsewhere than in the service's Node: the edge entry in workerd, and the packages that users install:
// `make test-edge`.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/{edge,client,package}/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-edge-results.json" }]],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers: 3,
    sequence: { shuffle: { files: true } },
  },
});
