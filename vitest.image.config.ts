import { defineConfig } from "vitest/config";

// The image, built for real: `make test-image`.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/image/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-image-results.json" }]],
    testTimeout: 120_000,
    // Debian's packages and npm's, twice.
    hookTimeout: 45 * 60_000,
  },
});
