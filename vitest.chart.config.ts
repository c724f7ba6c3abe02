import { defineConfig } from "vitest/config";

// The chart and the gate with Helm, kubeconform, Prometheus and Alertmanager: `make test-chart`.
// biome-ignore lint/style/noDefaultExport: vitest demands it
export default defineConfig({
  test: {
    include: ["test/chart/**/*.test.ts", "test/gate/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".cache/test-chart-results.json" }]],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
  },
});
