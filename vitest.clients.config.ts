import { defineConfig } from "vitest/config";

// Clients in other languages, and the port as their libraries see it: `make test-clients`.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/clients/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-clients-results.json" }]],
    // A thousand streams take a machine that is busy with other things more than a minute. No test measures time.
    testTimeout: 180_000,
    // What takes long on a new machine is what a client downloads and compiles.
    hookTimeout: 20 * 60_000,
    maxWorkers: 2,
    sequence: { shuffle: { files: true } },
  },
});
