import { defineConfig } from "vite";

// The console is served by the service itself, from web/dist, under a content security policy without inline scripts.
// biome-ignore lint/style/noDefaultExport: vite reads the default export
export default defineConfig({
  root: import.meta.dirname,
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2023",
    modulePreload: { polyfill: false },
    // A data: URL would need a hole in the policy.
    assetsInlineLimit: 0,
  },
});
