import { errorFacts, LOG_LEVELS, type LogFacts, type Logger, type LogLevel, type LogOrigin } from "./logger-port.ts";

/** A logger of the same JSON lines for runtimes that have a console and nothing else. */
export function createConsoleLogger({
  level,
  write = (line) => console.log(line),
  ...origin
}: LogOrigin & { readonly level: LogLevel; readonly write?: (line: string) => void }): Logger {
  const from = LOG_LEVELS.indexOf(level);
  const logger = (base: LogFacts): Logger => {
    const at = (label: LogLevel) => {
      if (LOG_LEVELS.indexOf(label) < from) return () => {};
      return (facts: LogFacts, msg: string): void => {
        const time = new Date().toISOString();
        write(JSON.stringify({ level: label, time, ...origin, ...base, ...serialised(facts), msg }));
      };
    };
    return {
      debug: at("debug"),
      info: at("info"),
      warn: at("warn"),
      error: at("error"),
      child: (facts) => logger({ ...base, ...serialised(facts) }),
    };
  };
  return logger({});
}

function serialised(facts: LogFacts): LogFacts {
  return "error" in facts ? { ...facts, error: errorFacts(facts.error) } : facts;
}
