import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { UsageInterval, type UsageService } from "../gen/parley/usage/v1/usage_service_pb.js";
import type { AccountStore } from "../src/accounts/account-store.ts";
import { periodName } from "../src/accounts/budget-periods.ts";
import { nameOfBudgetScope, parseScopeName } from "../src/accounts/call-scopes.ts";
import type { PriceTable } from "../src/accounts/price-table.ts";
import { repriced } from "../src/accounts/repricing.ts";
import { rowsOf, sumUsage } from "../src/accounts/usage-query.ts";
import { Failure, WrongFields } from "../src/failure.ts";
import { callContextOf } from "../src/rpc/call-context.ts";
import type { Rollups } from "./rollups.ts";
import { periodsFor, sumRollups } from "./rollups-query.ts";
import { isDimension, readUsageFilters } from "./usage-filters.ts";

/** Longest id of a scope. */
const SCOPE_ID_CHARACTERS = 256;

/** UsageService over rollups where they can answer, else over the ledger; for the caller's tenant: there is no other for it. */
export function createUsageHandlers({
  accounts,
  prices,
  rollups,
  catchUp,
}: {
  accounts: Pick<AccountStore, "ledger" | "budgets" | "setBudget" | "amend">;
  rollups: Pick<Rollups, "read">;
  /** Resolves when the account's rollups are as new as its ledger, or that takes too long. */
  catchUp(tenant: string): Promise<void>;
  prices: PriceTable;
}): ServiceImpl<typeof UsageService> {
  return {
    async queryUsage(request, context) {
      const wrong = new WrongFields();
      const range = rangeOf(request, wrong);
      const { groupBy, interval } = request;
      wrong.unless(groupBy.every(isDimension), "group_by", "must be values of UsageDimension");
      wrong.unless(new Set(groupBy).size === groupBy.length, "group_by", "must not name a dimension twice");
      wrong.unless(UsageInterval[interval] !== undefined, "interval", "must be a value of UsageInterval");
      const tenant = tenantOf(context);
      const filters = readUsageFilters(request.filters, { tenant, wrong });
      wrong.throwIfAny();
      const question = { tenant, groupBy, interval, filters, ...range };
      const periods = periodsFor(question, Date.now());
      if (periods === undefined) return { groups: await sumUsage(rowsOf(accounts, question), question) };
      await catchUp(question.tenant);
      return { groups: await sumRollups(rollups, question, periods) };
    },

    async *exportUsage(request, context) {
      const wrong = new WrongFields();
      const range = rangeOf(request, wrong);
      const tenant = tenantOf(context);
      const filters = readUsageFilters(request.filters, { tenant, wrong });
      wrong.throwIfAny();
      for await (const record of rowsOf(accounts, { tenant, filters, ...range })) yield { record };
    },

    async listBudgets(_, context) {
      return { budgets: await accounts.budgets(tenantOf(context)) };
    },

    async setBudget({ scope: wanted, period: wantedPeriod, limitMicroUsd, limitTokens, dryRun }, context) {
      const tenant = tenantOf(context);
      const wrong = new WrongFields();
      const scope = nameOfBudgetScope(wanted);
      const period = periodName(wantedPeriod);
      const { kind, id } = parseScopeName(scope ?? ":");
      wrong.unless(scope !== undefined, "scope", "must name somebody");
      wrong.unless(
        id.length <= SCOPE_ID_CHARACTERS,
        "scope",
        `must have an id of at most ${SCOPE_ID_CHARACTERS} characters`,
      );
      wrong.unless(kind !== "tenant" || id === tenant, "scope", "must be the caller's own tenant, or somebody in it");
      wrong.unless(period !== undefined, "period", "must be BUDGET_PERIOD_HOUR, _DAY or _MONTH");
      wrong.unless((limitMicroUsd ?? 0n) >= 0n, "limit_micro_usd", "must not be negative");
      wrong.unless((limitTokens ?? 0n) >= 0n, "limit_tokens", "must not be negative");
      wrong.throwIfAny();
      if (scope === undefined || period === undefined) throw new TypeError("checked above");
      const limits = {
        ...(limitMicroUsd === undefined ? {} : { limitMicroUsd }),
        ...(limitTokens === undefined ? {} : { limitTokens }),
      };
      return { budget: await accounts.setBudget(tenant, { scope, period, ...limits, dryRun }) };
    },

    async listPrices({ model }) {
      return { prices: model === "" ? prices.list() : prices.list(model) };
    },

    async repriceUsage(request, context) {
      const wrong = new WrongFields();
      const range = rangeOf(request, wrong);
      wrong.throwIfAny();
      const tenant = tenantOf(context);
      const rows = rowsOf(accounts, { tenant, ...range });
      const { corrections, differenceMicroUsd, token } = await repriced(rows, { prices, model: request.model });
      const answer = { records: BigInt(corrections.length), differenceMicroUsd };
      if (request.previewToken === "") return { ...answer, previewToken: token };
      // Only what was looked at is committed.
      if (request.previewToken !== token) throw new Failure("PREVIEW_STALE");
      await accounts.amend(tenant, corrections);
      return { ...answer, previewToken: "" };
    },
  };
}

function tenantOf(context: HandlerContext): string {
  return callContextOf(context).principal.tenant;
}

const TIME_RULE = "must be a time of the years 1 to 9999";

/** Whether a timestamp can have such fields (google/protobuf/timestamp.proto); one that is missing is another fault. */
function isTime({ seconds, nanos }: Pick<Timestamp, "seconds" | "nanos"> = { seconds: 0n, nanos: 0 }): boolean {
  return seconds >= -62_135_596_800n && seconds <= 253_402_300_799n && nanos >= 0 && nanos <= 999_999_999;
}

/** Reads the range of a request, and says what is wrong with it. */
function rangeOf(
  { startTime, endTime }: { readonly startTime?: Timestamp | undefined; readonly endTime?: Timestamp | undefined },
  wrong: WrongFields,
): { startMs: number; endMs: number } {
  wrong.unless(startTime !== undefined, "start_time", "must be set");
  wrong.unless(endTime !== undefined, "end_time", "must be set");
  const startMs = startTime === undefined ? 0 : timestampMs(startTime);
  const endMs = endTime === undefined ? 0 : timestampMs(endTime);
  wrong.unless(isTime(startTime), "start_time", TIME_RULE);
  wrong.unless(isTime(endTime), "end_time", TIME_RULE);
  const both = startTime !== undefined && endTime !== undefined;
  wrong.unless(!both || startMs < endMs, "end_time", "must be after start_time");
  return { startMs, endMs };
}
