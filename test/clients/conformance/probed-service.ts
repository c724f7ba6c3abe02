import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { startRedisServer } from "../../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../../support/service-process.ts";
import { singleTeams } from "../../support/single-teams.ts";

/** Teams: one that repeats what it is told, one whose model never answers, one whose model has a window for long messages. */
const PARLEY_YAML = singleTeams({ default: {}, stall: { model: "sim-stall" }, roomy: { model: "gpt-4.1" } });

/** A service on a Redis for the tests of a file, as operators run it but for its model. */
export function useProbedService(env: Readonly<Record<string, string>> = {}): { readonly url: string } {
  let service: ServiceProcess;
  const cleanups: (() => unknown)[] = [];
  beforeAll(async () => {
    const redis = await startRedisServer({ appendOnly: true });
    cleanups.push(() => redis.stop());
    const folder = await mkdtemp(join(tmpdir(), "parley-probed-"));
    cleanups.push(() => rm(folder, { recursive: true }));
    const config = join(folder, "parley.yaml");
    await writeFile(config, JSON.stringify(PARLEY_YAML));
    service = await startServiceProcess({
      entry: "standalone/main.ts",
      env: { REDIS_URL: redis.url, CONFIG_FILE: config, MAX_TOKENS: "200000", DRAIN_MS: "0", ...env },
    });
    cleanups.push(() => service.stop());
  });
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });
  return {
    get url() {
      return service.url;
    },
  };
}
