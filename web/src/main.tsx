import { render } from "preact";
import { createBrowserMemory } from "./browser-memory.ts";
import { createCell } from "./cell.ts";
import { createConsoleModel } from "./console-model.ts";
import { ConsolePage } from "./console-page.tsx";
import { createParleyOfPage, createUsageClient } from "./parley-clients.ts";
import { createTabs } from "./tabs.ts";
import { createTurnMemory } from "./turn-memory.ts";

const root = document.getElementById("console");
if (root !== null) {
  const visible = createCell(!document.hidden);
  document.addEventListener("visibilitychange", () => visible.set(!document.hidden));
  const model = createConsoleModel({
    parley: createParleyOfPage(),
    memory: createBrowserMemory(),
    turnMemory: createTurnMemory(),
    tabs: createTabs(),
    visible,
  });
  window.addEventListener("popstate", () => model.followAddress());
  window.addEventListener("hashchange", () => model.followAddress());
  render(<ConsolePage model={model} usage={createUsageClient()} />, root);
}
