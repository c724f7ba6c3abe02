import { render } from "preact";
import { createBrowserMemory } from "./browser-memory.ts";
import { createConsoleModel } from "./console-model.ts";
import { ConsolePage } from "./console-page.tsx";
import { createParleyClients } from "./parley-clients.ts";

const root = document.getElementById("console");
if (root !== null) {
  const model = createConsoleModel({ clients: createParleyClients(), memory: createBrowserMemory() });
  window.addEventListener("popstate", () => model.followAddress());
  window.addEventListener("hashchange", () => model.followAddress());
  render(<ConsolePage model={model} />, root);
}
