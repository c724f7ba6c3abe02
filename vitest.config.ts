import { defineConfig } from "vitest/config";

// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // `make test-chart`, `test-mesh`, `test-image` and `test-clients` have their own configurations.
    exclude: ["test/chart/**", "test/gate/**", "test/mesh/**", "test/image/**", "test/clients/**"],
    reporters: ["default", ["json", { outputFile: ".cache/test-results.json" }]],
    // Tests start servers, browsers and Redis; a shared machine may be slow for a while. No test measures time.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Tests wait for what they have started, most of their time: three of them keep two cores busy.
    maxWorkers: 3,
    // Each file starts and stops its own parts, so that the order does not matter.
    sequence: { shuffle: { files: true } },
  },
});
