import { createStaticFiles, fileOf, type PageHandler, pathOf, sendFile } from "./static-files.ts";

/** What the console is told at `/console-config.json`. */
export interface ConsoleConfig {
  readonly version: string;
  readonly track: string;
  /** Answers come from the simulated model; the console labels them so. */
  readonly simulatedModel: boolean;
  /** Name of the default model. */
  readonly model: string;
  /** Names of the agent teams. */
  readonly teams: readonly string[];
  /** Names of each team's agents, by the team's name. */
  readonly agents?: Readonly<Record<string, readonly string[]>>;
  /** Sessions live as long as the process only; the console says so. Default: false. */
  readonly embeddedStore?: boolean;
}

/** Serves the web console: the files of its build at `/`, and its configuration. */
export function createConsoleFiles({
  directory,
  config,
}: {
  /** Folder with the build, `web/dist`. */
  directory: string;
  /** What the console is to be told now. */
  config: () => ConsoleConfig;
}): PageHandler {
  const files = createStaticFiles({
    directory,
    root: "/",
    notBuilt:
      "<h1>The console is not built</h1><p>Run <code>npm run build:console</code>, then load this page again. " +
      "The service itself works without it: call it by gRPC, gRPC-Web or Connect.</p>",
  });
  return async (request, response) => {
    if (pathOf(request) !== "/console-config.json") return files(request, response);
    const told = JSON.stringify({ embeddedStore: false, ...config() });
    sendFile(fileOf("console-config.json", Buffer.from(told)), request, response);
    return true;
  };
}
