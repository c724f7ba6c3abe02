import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { plainUsd } from "./costs-money.ts";
import { msOf } from "./costs-sums.ts";

/** The columns, by the contract's names; each amount is exact. */
const COLUMNS: Readonly<Record<string, (row: UsageRecord) => string>> = {
  hold_time: (row) => new Date(msOf(row.holdTime)).toISOString(),
  record_id: (row) => quoted(row.recordId),
  corrects_record_id: (row) => quoted(row.correctsRecordId),
  tenant: (row) => quoted(row.tenant),
  team: (row) => quoted(row.team),
  user_id: (row) => quoted(row.userId),
  use_case: (row) => quoted(row.useCase),
  session_id: (row) => quoted(row.sessionId),
  turn_id: (row) => quoted(row.turnId),
  agent: (row) => quoted(row.agent),
  model: (row) => quoted(row.model),
  version: (row) => quoted(row.version),
  prompt_tokens: (row) => String(row.promptTokens),
  cached_prompt_tokens: (row) => String(row.cachedPromptTokens),
  completion_tokens: (row) => String(row.completionTokens),
  reasoning_tokens: (row) => String(row.reasoningTokens),
  cost_micro_usd: (row) => String(row.costMicroUsd),
  cost_usd: (row) => plainUsd(row.costMicroUsd),
  price_version: (row) => quoted(row.priceVersion),
  usage_source: (row) => UsageSource[row.usageSource] ?? "",
  outcome: (row) => CallOutcome[row.outcome] ?? "",
};

const END_OF_LINE = "\r\n";

/** First line of a CSV (RFC 4180). */
export const csvHead = `${Object.keys(COLUMNS).join(",")}${END_OF_LINE}`;

/** A ledger row as a line. */
export function csvLine(row: UsageRecord): string {
  return `${Object.values(COLUMNS)
    .map((text) => text(row))
    .join(",")}${END_OF_LINE}`;
}

/** Spreadsheets take text that begins so for a formula, and users choose their names: https://owasp.org/www-community/attacks/CSV_Injection */
const FORMULA = /^[=+\-@\t\r]/;

function quoted(text: string): string {
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
