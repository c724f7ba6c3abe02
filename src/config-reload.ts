import { isDeepStrictEqual } from "node:util";
import type { Config } from "./config.ts";
import type { LiveDefinitions } from "./live-definitions.ts";
import type { Metrics } from "./metrics.ts";
import type { ParleyYaml } from "./parley-yaml.ts";
import { ConfigError } from "./platform/environment.ts";
import type { Logger } from "./platform/logger-port.ts";

/** parley.yaml, read again when it changes. */
export interface ConfigReload {
  /** Reads it now. */
  reload(): void;
  /** Looks no more. */
  stop(): void;
}

/** Sections that the service and the sidecar read once, and have to agree on. */
const NEED_RESTART = ["prices", "budgets", "breaker"] as const satisfies readonly (keyof ParleyYaml)[];

/**
 * Looks at the file now and then: at its content, for mounted files change by swapped links that no file watcher tells of
 * reliably. A content is used when it was found twice, so that a file that is being written is not read by half. One that
 * cannot be used is told of once, with all its problems, and counted; meanwhile the old one stands.
 *
 * @param intervalMs Pause between two looks. Default 2,000: a change is used within two of them.
 */
export function startConfigReload({
  config,
  definitions,
  metrics,
  logger,
  intervalMs = 2_000,
}: {
  config: Pick<Config, "configFile" | (typeof NEED_RESTART)[number]>;
  definitions: Pick<LiveDefinitions, "replace">;
  metrics: Pick<Metrics, "configReloaded">;
  logger: Logger;
  intervalMs?: number;
}): ConfigReload {
  const { configFile } = config;
  if (configFile === undefined) return { reload: () => undefined, stop: () => undefined };
  /** What was read last, of use or not; undefined: it cannot be read. */
  let known: string | undefined = configFile.text;
  let found: string | undefined = known;

  const use = (text: string | undefined): void => {
    known = text;
    try {
      const file = configFile.parse(text);
      definitions.replace(file);
      const sections = NEED_RESTART.filter((section) => !isDeepStrictEqual(file[section], config[section]));
      metrics.configReloaded("used");
      logger.info({ teams: file.teams.size, tool_servers: file.mcpServers.size }, "configuration file read again");
      if (sections.length > 0) logger.warn({ sections }, "what has changed in these sections needs a restart");
    } catch (error) {
      metrics.configReloaded("refused");
      const facts = error instanceof ConfigError ? { problems: error.problems } : { error };
      logger.error(facts, "configuration file refused; the old one stays");
    }
  };
  const read = (): string | undefined => {
    try {
      return configFile.read();
    } catch {
      return undefined;
    }
  };
  const look = (): void => {
    const text = read();
    if (text === found && text !== known) use(text);
    found = text;
  };
  const timer = setInterval(look, intervalMs);
  timer.unref();
  return {
    reload() {
      found = read();
      use(found);
    },
    stop: () => clearInterval(timer),
  };
}
