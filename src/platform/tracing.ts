import { context, DiagLogLevel, diag, propagation, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import {
  defaultResource,
  envDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector,
} from "@opentelemetry/resources";
import { NodeSDK } from "@opentelemetry/sdk-node";
import type { LogFacts, Logger } from "./logger-port.ts";

export interface Tracing {
  /** Where spans go; undefined: nowhere, tracing is off. */
  readonly url: string | undefined;
  /**
   * Sends what is buffered and ends tracing, within 3 s. Resolves too when the collector does not answer; repeated calls
   * get the same promise.
   */
  shutdown(): Promise<void>;
}

/**
 * Sends spans by OTLP over HTTP as protobuf, if there is anywhere to send them: `endpoint`, else
 * OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT. Sampling, headers, batches and resource
 * attributes obey the standard OTEL_* variables, which the SDK reads itself. One per process: OpenTelemetry's API is
 * global.
 *
 * @param endpoint A collector's base URL, such as `http://collector:4318`; `/v1/traces` is added where it is missing.
 */
export function startTracing({
  endpoint,
  serviceName,
  version,
  track,
  env,
  logger,
}: {
  readonly endpoint?: string | undefined;
  readonly serviceName: string;
  readonly version: string;
  readonly track: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told when spans cannot be sent. */
  readonly logger?: Logger;
}): Tracing {
  const url = tracesUrl(endpoint, env);
  if (url === undefined || isOn(env.OTEL_SDK_DISABLED)) return { url: undefined, shutdown: async () => {} };

  const resource = resourceFromAttributes({
    "service.name": serviceName,
    "service.version": version,
    "parley.track": track,
  });
  const sdk = new NodeSDK({
    resource: defaultResource().merge(resource),
    // The process' arguments and the host's name are nobody's business; what OTEL_RESOURCE_ATTRIBUTES says wins.
    resourceDetectors: [serviceInstanceIdDetector, envDetector],
    // The SDK puts a batch processor before it, set up by OTEL_BSP_*.
    traceExporter: new OTLPTraceExporter({ url }),
    // Not given, the SDK would send logs and metrics by OTLP as well.
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [],
  });
  sdk.start();
  if (logger !== undefined) logDiagnostics(logger);
  const shutDown = async (): Promise<void> => {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error("too late")), SHUTDOWN_MS);
    try {
      await Promise.race([sdk.shutdown(), late.promise]);
    } catch (error) {
      logger?.warn({ error }, "the last spans were not sent");
    } finally {
      clearTimeout(timer);
    }
    for (const api of [trace, context, propagation, diag]) api.disable();
  };
  let shuttingDown: Promise<void> | undefined;
  return {
    url,
    shutdown() {
      shuttingDown ??= shutDown();
      return shuttingDown;
    },
  };
}

/** The last spans may take this long, in milliseconds: the exporter would try a collector that is gone for 10 s. */
const SHUTDOWN_MS = 3_000;

/** The trace and span that the code runs in, as log lines have them; nothing where there is none. */
export function traceFacts(): LogFacts {
  const span = trace.getActiveSpan()?.spanContext();
  return span === undefined ? {} : { trace_id: span.traceId, span_id: span.spanId };
}

function tracesUrl(
  endpoint: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const base = endpoint || undefined;
  if (base !== undefined) return withTracesPath(base);
  if (env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) return env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  return env.OTEL_EXPORTER_OTLP_ENDPOINT ? withTracesPath(env.OTEL_EXPORTER_OTLP_ENDPOINT) : undefined;
}

function withTracesPath(base: string): string {
  const trimmed = base.replace(/\/+$/, "");
  return trimmed.endsWith("/v1/traces") ? trimmed : `${trimmed}/v1/traces`;
}

function isOn(value: string | undefined): boolean {
  return value?.trim().toLowerCase() === "true";
}

/** The SDK's own complaints, as JSON lines like all others; its arguments may hold headers, so only the sentence is kept. */
function logDiagnostics(logger: Logger): void {
  const say = (write: Logger["warn"]) => (sentence: string) =>
    write({ diagnostic: sentence.slice(0, MAX_DIAGNOSTIC_CHARACTERS) }, "OpenTelemetry complains");
  diag.setLogger(
    { error: say(logger.error), warn: say(logger.warn), info: () => {}, debug: () => {}, verbose: () => {} },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
}

const MAX_DIAGNOSTIC_CHARACTERS = 500;
