import facts from "../package.json" with { type: "json" };
import { createEdge } from "./edge-app.ts";

// The entry for edge runtimes, to be bundled: `npm run build:edge`.
// biome-ignore lint/style/noDefaultExport: workers are the default export of their module
export default createEdge({ packageVersion: facts.version });
