import { readFileSync } from "node:fs";
import { startApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { siteFolders } from "../../src/package-facts.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { runUntilSignal } from "../../src/platform/process.ts";
import { connectStores } from "../../src/stores.ts";
import { isDefect, switchFencingOff, withAccountDefect, withDefect, withRecord } from "./faulty-stores.ts";
import { recordingTools } from "./recording-tools.ts";

// A replica as src/main.ts starts it, with tools that write down their calls, and with a defect where one is asked for.
const { SOAK_RECORD: file = "", SOAK_REPLICA = "0", SOAK_DEFECT = "", ...env } = process.env;
const defect = isDefect(SOAK_DEFECT) ? SOAK_DEFECT : undefined;
if (defect === "no-fencing") switchFencingOff();

await runUntilSignal({
  async start() {
    const config = loadConfig(env, {
      readFile: (path) => readFileSync(path, "utf8"),
      packageVersion: "0.0.0-soak",
      tools: recordingTools(file),
    });
    const { version, track, logLevel } = config;
    const logger = createLogger({ level: logLevel, version, track });
    const budgets = defect === "caps-unheeded" ? [] : config.budgets;
    const stores = connectStores({ config: { ...config, budgets }, logger });
    const accounts = withAccountDefect(stores.accounts, defect);
    const store = withRecord(withDefect(stores.store, defect), { file, replica: Number(SOAK_REPLICA) });
    const app = await startApp({
      config,
      logger,
      siteFolders,
      stores: { ...stores, store, accounts },
    });
    logger.info({ url: app.url, ops_url: app.opsUrl }, "serving");
    return {
      async close() {
        await app.close();
        await logger.flush();
      },
    };
  },
});
