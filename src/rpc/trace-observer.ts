import {
  context,
  INVALID_TRACEID,
  propagation,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
} from "@opentelemetry/api";
import { Failure } from "../failure.ts";
import { type CallObserver, isOurFault } from "./call-observer.ts";

/**
 * A server span per RPC, child of the caller's where it sends `traceparent`, active in the handler and in each step of
 * its stream, so that the spans of the turn and its model calls are within. Named and labelled after OpenTelemetry's
 * semantic conventions for Connect RPC. Without a tracing SDK it costs two look-ups.
 */
export function observeTrace(): CallObserver {
  return ({ method, requestHeader }) => {
    const parent = propagation.extract(context.active(), requestHeader, headerGetter);
    const span = trace.getTracer("parley.rpc").startSpan(
      `${method.parent.typeName}/${method.name}`,
      {
        kind: SpanKind.SERVER,
        attributes: {
          "rpc.system": "connect_rpc",
          "rpc.service": method.parent.typeName,
          "rpc.method": method.name,
        },
      },
      parent,
    );
    const active = trace.setSpan(parent, span);
    return {
      // Without an SDK and without a caller's trace there is no context to keep.
      ...(span.spanContext().traceId !== INVALID_TRACEID ? { within: (work) => context.with(active, work) } : {}),
      ended({ code, error }) {
        if (error !== undefined) {
          const reason = error.cause instanceof Failure ? error.cause.reason : "INTERNAL";
          span.setAttributes({ "rpc.connect_rpc.error_code": code, "error.type": reason });
          // Of a server's span the conventions call an error only what is the server's fault.
          if (isOurFault(error.code)) span.setStatus({ code: SpanStatusCode.ERROR });
        }
        span.end();
      },
    };
  };
}

const headerGetter: TextMapGetter<Headers> = {
  keys: (header) => [...header.keys()],
  get: (header, name) => header.get(name) ?? undefined,
};
