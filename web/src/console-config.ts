/** What the service tells its console at `/console-config.json`. */
export interface ConsoleConfig {
  readonly version: string;
  readonly track: string;
  /** Answers come from the simulated model. */
  readonly simulatedModel: boolean;
  readonly model: string;
  /** Names of the agent teams. */
  readonly teams: readonly string[];
  /** Sessions live as long as the process only. */
  readonly embeddedStore: boolean;
}

/** Reads the service's answer; undefined when it has none: the console works without. */
export async function fetchConsoleConfig(): Promise<ConsoleConfig | undefined> {
  try {
    const response = await fetch("/console-config.json");
    if (!response.ok) return undefined;
    const told = (await response.json()) as Partial<ConsoleConfig>;
    return {
      version: told.version ?? "",
      track: told.track ?? "",
      simulatedModel: told.simulatedModel === true,
      model: told.model ?? "",
      teams: told.teams ?? [],
      embeddedStore: told.embeddedStore === true,
    };
  } catch {
    return undefined;
  }
}
