/**
 * Structured log lines: facts and a constant sentence. Facts are ids, names, codes and numbers; never message text, tool
 * arguments, keys or tokens. Nothing here needs Node, so that an edge runtime can log too.
 */
export interface Logger {
  debug(facts: LogFacts, sentence: string): void;
  info(facts: LogFacts, sentence: string): void;
  warn(facts: LogFacts, sentence: string): void;
  error(facts: LogFacts, sentence: string): void;
  /** A logger that adds these facts to every line. */
  child(facts: LogFacts): Logger;
}

/** A logger with lines still to be written. */
export interface BufferedLogger extends Logger {
  /** Resolves when all lines so far are written. Later lines are written all the same. */
  flush(): Promise<void>;
}

/** Names in snake_case. `error` is an error as it was caught: it is logged as {@link errorFacts}. */
export type LogFacts = Readonly<Record<string, unknown>>;

/** Levels from the most talkative on; `silent` writes nothing. */
export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** What every line says of its writer. */
export interface LogOrigin {
  /** The process, such as `parley`. */
  readonly service: string;
  readonly version: string;
  readonly track: string;
}

/**
 * An error as log lines have it: type, code, reason, stack frames, causes. Its message is left out: a parser's quotes what it
 * was given, a model server's what a user said. Codes and reasons are kept only where they look like constants.
 */
export function errorFacts(error: unknown, depth = 0): LogFacts {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code, reason } = error as { code?: unknown; reason?: unknown };
  const { cause } = error;
  return {
    type: error.name,
    ...(isConstant(code) ? { code } : {}),
    ...(isConstant(reason) ? { reason } : {}),
    stack: stackFrames(error),
    ...(cause === undefined || depth >= MAX_CAUSES ? {} : { cause: errorFacts(cause, depth + 1) }),
  };
}

/** Chains of causes are cut here: they can be circular. */
const MAX_CAUSES = 4;

/** The stack without its head, which repeats the message. */
function stackFrames({ stack = "", message }: Error): string[] {
  const lines = stack.slice(stack.indexOf(message) + message.length).split("\n");
  const frames = lines.map((line) => line.trim()).filter((line) => /^at .*:\d+:\d+\)?$/.test(line));
  return frames.slice(0, MAX_FRAMES);
}

const MAX_FRAMES = 12;

function isConstant(value: unknown): value is string | number {
  return typeof value === "number" || (typeof value === "string" && /^[A-Z][A-Z0-9_]{1,63}$/.test(value));
}
