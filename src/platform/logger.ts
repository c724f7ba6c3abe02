import {
  type DestinationStream,
  destination as fileDestination,
  type Logger as PinoLogger,
  pino,
  stdTimeFunctions,
} from "pino";
import {
  type BufferedLogger,
  errorFacts,
  type LogFacts,
  type Logger,
  type LogLevel,
  type LogOrigin,
} from "./logger-port.ts";

/**
 * A logger of JSON lines on standard output: `{"level":"info","time":"2026-01-01T00:00:00.000Z","service":…,"version":…,
 * "track":…, facts, "msg":…}`.
 */
export function createLogger({
  level,
  service = "parley",
  version,
  track,
  mixin,
  destination = stdout(),
}: Partial<Pick<LogOrigin, "service">> &
  Omit<LogOrigin, "service"> & {
    readonly level: LogLevel;
    /** Facts of the moment for every line that is written, such as the trace. */
    readonly mixin?: () => LogFacts;
    /** Where lines go; standard output, buffered, by default. */
    readonly destination?: DestinationStream;
  }): BufferedLogger {
  const root = pino(
    {
      level,
      base: { service, version, track },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: errorFacts },
      ...(mixin === undefined ? {} : { mixin: () => ({ ...mixin() }) }),
    },
    destination,
  );
  return {
    ...asLogger(root),
    flush: () =>
      new Promise((resolve, reject) => {
        root.flush((error) => (error && !isNoFile(error) ? reject(error) : resolve()));
      }),
  };
}

/** Flushing ends with an fsync, which a pipe or a terminal has not; the lines are written by then. */
function isNoFile(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "EINVAL" || code === "ENOTSUP" || code === "EROFS";
}

/**
 * Lines are gathered up to this size, or this long in milliseconds, before they are written: a write costs more than a
 * line. As buffers: of strings the stream measures all that it holds with each line.
 */
const BUFFER = { contentMode: "buffer", minLength: 32_768, maxWrite: 65_536, periodicFlush: 200 } as const;

/** What is gathered when the process exits is written by pino's exit hook. */
function stdout(): DestinationStream {
  const file = fileDestination({ dest: 1, sync: false, ...BUFFER });
  const write = file.write.bind(file) as unknown as (line: Buffer) => boolean;
  file.write = (line) => write(Buffer.from(line));
  return file;
}

function asLogger(logger: PinoLogger): Logger {
  return {
    debug: (facts, sentence) => logger.debug(facts, sentence),
    info: (facts, sentence) => logger.info(facts, sentence),
    warn: (facts, sentence) => logger.warn(facts, sentence),
    error: (facts, sentence) => logger.error(facts, sentence),
    child: (facts) => asLogger(logger.child(facts)),
  };
}

export type { BufferedLogger, Logger } from "./logger-port.ts";
