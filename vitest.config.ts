import { defineConfig } from "vitest/config";

// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // `make test-chart`, `test-mesh`, `test-image`, `test-clients` and `test-edge` have their own configurations.
    exclude: ["chart", "gate", "mesh", "image", "clients", "edge", "client", "package"].map(
      (suite) => `test/${suite}/**`,
    ),
    reporters: ["default", ["json", { outputFile: ".cache/test-results.json" }]],
    // Tests start servers, browsers and Redis; a shared machine may be slow for a while. No test measures time.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Tests wait for what they have started, most of their time: three of them keep two cores busy. CI
    // has time, and nobody to look at a test that had too little.
    maxWorkers: process.env.CI === undefined ? 3 : 2,
    // Each file starts and stops its own parts, so that the order does not matter.
    sequence: { shuffle: { files: true } },
  },
});
