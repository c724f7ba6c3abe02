import { timestampMs } from "@bufbuild/protobuf/wkt";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { UsageSource } from "../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, type UsageRecord } from "../gen/parley/usage/v1/usage_record_pb.js";
import { UsageDimension } from "../gen/parley/usage/v1/usage_service_pb.js";
import type { AccountStore } from "../src/accounts/account-store.ts";
import { rowsOf } from "../src/accounts/usage-query.ts";
import { Failure, WrongFields } from "../src/failure.ts";
import type { Authenticator } from "../src/identity/authenticator.ts";
import { ANYONE, hasRole } from "../src/identity/principal.ts";
import type { Logger } from "../src/platform/logger-port.ts";
import { responseWriter } from "../src/platform/response-writer.ts";
import { toConnectError } from "../src/rpc/error-mapping.ts";
import { errorTable } from "../src/rpc/error-table.ts";
import type { HttpHandler } from "../src/rpc/http-server.ts";
import type { RequestMetrics } from "../src/rpc/metrics-observer.ts";
import { readUsageFilters } from "./usage-filters.ts";

type Request = Parameters<HttpHandler>[0];
type Response = Parameters<HttpHandler>[1];

/** Where it is served. */
export const USAGE_CSV_PATH = "/usage.csv";

/**
 * The ledger's rows of a time range as CSV (RFC 4180), for people who count in sheets:
 * `GET /usage.csv?start_time=2026-11-01T00:00:00Z&end_time=2026-12-01T00:00:00Z&team=red&team=blue`. Same credentials, roles,
 * tenant and filters as ExportUsage. It is written as it is read, so that a ledger of any size takes no more memory than a page of it; where the
 * ledger fails midway the connection is cut, so that a part is never taken for the whole.
 */
export function createUsageCsv({
  accounts,
  authenticate,
  metrics,
  logger,
}: {
  accounts: Pick<AccountStore, "ledger">;
  /** Absent: everyone is anyone. */
  authenticate: Authenticator | undefined;
  metrics: RequestMetrics;
  logger: Logger;
}): HttpHandler {
  const serve = async (request: Request, response: Response): Promise<void> => {
    const writer = responseWriter(response);
    const write = async (text: string): Promise<void> => {
      if (!(await writer.write(text))) throw new ClientGone();
    };
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return refuse(response, 405, "GET it.");
    }
    const headers = new Headers({ authorization: String(request.headers.authorization ?? "") });
    const principal = (await authenticate?.(headers)) ?? ANYONE;
    if (!hasRole(principal, "usage:read")) throw new Failure("ROLE_MISSING");
    const query = new URL(request.url ?? "", "http://localhost").searchParams;
    const [startMs, endMs] = [timeOf(query.get("start_time")), timeOf(query.get("end_time"))];
    if (startMs === undefined || endMs === undefined || startMs >= endMs) throw new Failure("INVALID_FIELD");
    const { tenant } = principal;
    const wrong = new WrongFields();
    const filters = readUsageFilters(filtersOf(query), { tenant, wrong });
    wrong.throwIfAny();
    const rows = rowsOf(accounts, { tenant, startMs, endMs, filters });
    // The first page is read before anything is said: a store that is away is then an honest 503.
    const first = await rows.next();
    response.statusCode = 200;
    response.setHeader("content-type", "text/csv; charset=utf-8; header=present");
    response.setHeader("content-disposition", 'attachment; filename="usage.csv"');
    response.setHeader("cache-control", "no-store");
    if (request.method === "HEAD") return void response.end();
    await write(`${COLUMNS.map(([name]) => name).join(",")}\r\n`);
    if (first.done !== true) {
      let lines = lineOf(first.value);
      for await (const row of rows) {
        lines += lineOf(row);
        if (lines.length < CHUNK_CHARACTERS) continue;
        await write(lines);
        lines = "";
      }
      await write(lines);
    }
    response.end();
  };

  return (request, response) => {
    const startedMs = performance.now();
    const ended = (code: string): void => {
      const milliseconds = performance.now() - startedMs;
      metrics.requestEnded({ rpc: "usage.csv", code, seconds: milliseconds / 1_000 });
      logger.info({ rpc: "usage.csv", code, duration_ms: Math.round(milliseconds) }, "rpc ended");
    };
    serve(request, response).then(
      () => ended("ok"),
      (error: unknown) => {
        if (error instanceof ClientGone) return ended("canceled");
        const { code } = toConnectError(error);
        ended(codeToString(code));
        if (response.headersSent) {
          logger.warn({ error }, "a CSV was cut off");
          return response.destroy();
        }
        const reason = error instanceof Failure ? error.reason : "INTERNAL";
        if (reason === "INTERNAL") logger.error({ error }, "a CSV could not be made");
        if (reason !== "INVALID_FIELD") return refuse(response, statusOf(reason), errorTable[reason].message);
        refuse(
          response,
          400,
          `start_time and end_time must be times such as 2026-11-01T00:00:00Z, the later one last; beside them there may be ${Object.keys(FILTERS).join(", ")}: up to 100 values each, of tenants the caller's own.`,
        );
      },
    );
  };
}

/** What rows can be chosen by, as the columns are called where they say it. */
const FILTERS: Readonly<Record<string, UsageDimension>> = {
  tenant: UsageDimension.TENANT,
  team: UsageDimension.TEAM,
  user_id: UsageDimension.USER,
  use_case: UsageDimension.USE_CASE,
  agent: UsageDimension.AGENT,
  model: UsageDimension.MODEL,
  version: UsageDimension.VERSION,
  session_id: UsageDimension.SESSION,
};

/** A name that is not known chooses by nothing: passed over it would give everybody's rows to whoever mistyped it. */
function filtersOf(query: URLSearchParams): { dimension: UsageDimension; values: string[] }[] {
  const names = new Set(query.keys()).difference(new Set(["start_time", "end_time"]));
  return [...names].map((name) => ({
    dimension: FILTERS[name] ?? UsageDimension.UNSPECIFIED,
    values: query.getAll(name),
  }));
}

/** Lines are written when there are so many characters of them. */
const CHUNK_CHARACTERS = 65_536;

class ClientGone extends Error {}

function refuse(response: Response, status: number, sentence: string): void {
  response.statusCode = status;
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.end(`${sentence}\n`);
}

function statusOf(reason: Failure["reason"]): number {
  switch (reason) {
    case "CREDENTIALS_MISSING":
    case "CREDENTIALS_INVALID":
    case "CREDENTIALS_EXPIRED":
      return 401;
    case "ROLE_MISSING":
      return 403;
    case "STORE_UNAVAILABLE":
    case "IDENTITY_UNAVAILABLE":
      return 503;
    default:
      return 500;
  }
}

/** RFC 3339 with its zone. Undefined: it is none. */
function timeOf(text: string | null): number | undefined {
  if (text === null || !/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text)) return undefined;
  const timeMs = Date.parse(text);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** Columns; amounts are those of UsageRecord, and the cost once more in US dollars. */
const COLUMNS: readonly (readonly [name: string, cellOf: (row: UsageRecord) => string])[] = [
  ["record_id", ({ recordId }) => asText(recordId)],
  ["corrects_record_id", ({ correctsRecordId }) => asText(correctsRecordId)],
  ["hold_time", ({ holdTime }) => (holdTime === undefined ? "" : new Date(timestampMs(holdTime)).toISOString())],
  ["tenant", ({ tenant }) => asText(tenant)],
  ["team", ({ team }) => asText(team)],
  ["user_id", ({ userId }) => asText(userId)],
  ["use_case", ({ useCase }) => asText(useCase)],
  ["session_id", ({ sessionId }) => asText(sessionId)],
  ["turn_id", ({ turnId }) => asText(turnId)],
  ["agent", ({ agent }) => asText(agent)],
  ["model", ({ model }) => asText(model)],
  ["version", ({ version }) => asText(version)],
  ["prompt_tokens", ({ promptTokens }) => String(promptTokens)],
  ["cached_prompt_tokens", ({ cachedPromptTokens }) => String(cachedPromptTokens)],
  ["completion_tokens", ({ completionTokens }) => String(completionTokens)],
  ["reasoning_tokens", ({ reasoningTokens }) => String(reasoningTokens)],
  ["cost_micro_usd", ({ costMicroUsd }) => String(costMicroUsd)],
  ["cost_usd", ({ costMicroUsd }) => dollars(costMicroUsd)],
  ["price_version", ({ priceVersion }) => asText(priceVersion)],
  ["usage_source", ({ usageSource }) => UsageSource[usageSource] ?? ""],
  ["outcome", ({ outcome }) => CallOutcome[outcome] ?? ""],
];

function lineOf(row: UsageRecord): string {
  return `${COLUMNS.map(([, cellOf]) => cellOf(row)).join(",")}\r\n`;
}

/** Sheets run what begins like a formula (OWASP, "CSV injection"): a quote before it makes it text. */
function asText(value: string): string {
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Exact, with six decimals. */
function dollars(microUsd: bigint): string {
  const digits = (microUsd < 0n ? -microUsd : microUsd).toString().padStart(7, "0");
  return `${microUsd < 0n ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}
