import { defineConfig } from "vitest/config";

// Clients in other languages, and the port as their libraries see it: `make test-clients`.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/clients/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-clients-results.json" }]],
    // What takes long on a new machine is what a client downloads and compiles.
    testTimeout: 60_000,
    hookTimeout: 20 * 60_000,
    maxWorkers: 2,
    sequence: { shuffle: { files: true } },
  },
});
