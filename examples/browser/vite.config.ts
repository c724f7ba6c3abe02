import { defineConfig } from "vite";

// The page's origin is known to Parley (CORS_ORIGINS), so it must not wander to another port.
// biome-ignore lint/style/noDefaultExport: vite reads the default export
export default defineConfig({ server: { port: Number(process.env.PAGE_PORT ?? 5173), strictPort: true } });
