import { cors } from "@connectrpc/connect";
import { SESSION_VERSION_HEADER } from "./session-version.ts";

/** How long a browser may keep a preflight's answer, in seconds: two hours, the longest that Chromium keeps one. */
const PREFLIGHT_MAX_AGE_SECONDS = 7_200;

/** What the OpenAI-compatible door reads, and what that API's official client sends with every call. */
const OPENAI_REQUEST = [
  "X-Parley-Session-Id",
  "X-Parley-Use-Case",
  "Idempotency-Key",
  ...[
    "Lang",
    "Package-Version",
    "OS",
    "Arch",
    "Runtime",
    "Runtime-Version",
    "Retry-Count",
    "Timeout",
    // Of its helpers, such as stream().
    "Helper-Method",
  ].map((name) => `X-Stainless-${name}`),
  "OpenAI-Organization",
  "OpenAI-Project",
];
const OPENAI_RESPONSE = [
  "X-Parley-Session-Id",
  "X-Parley-Turn-Id",
  "Retry-After",
  "Retry-After-Ms",
  "X-Should-Retry",
  "X-RateLimit-Limit-Requests",
  "X-RateLimit-Remaining-Requests",
  "X-RateLimit-Reset-Requests",
];

/** DELETE is the REST door's. */
const methods = [...cors.allowedMethods, "DELETE"].join(", ");
const requestHeaders = [
  ...cors.allowedHeaders,
  "Authorization",
  "X-Request-Id",
  "Traceparent",
  SESSION_VERSION_HEADER,
  ...OPENAI_REQUEST,
].join(", ");
const responseHeaders = [...cors.exposedHeaders, "X-Request-Id", SESSION_VERSION_HEADER, ...OPENAI_RESPONSE].join(", ");

/**
 * Headers for a request of a browser on another origin: undefined when its origin is not on the list. The origin is named,
 * never `*`, so that the answer may carry credentials.
 */
export function corsHeaders(
  { origin, preflight }: { origin: string | undefined; preflight: boolean },
  allowed: readonly string[],
): Record<string, string> | undefined {
  if (origin === undefined || !allowed.includes(origin)) return undefined;
  const headers = { "Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", Vary: "Origin" };
  if (!preflight) return { ...headers, "Access-Control-Expose-Headers": responseHeaders };
  return {
    ...headers,
    "Access-Control-Allow-Methods": methods,
    "Access-Control-Allow-Headers": requestHeaders,
    "Access-Control-Max-Age": String(PREFLIGHT_MAX_AGE_SECONDS),
  };
}
