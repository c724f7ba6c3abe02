import * as z from "zod";
import type { ConfiguredBudget } from "./budgets.ts";
import { EACH, SCOPE_KINDS, scopeName } from "./call-scopes.ts";

const limit = z.int().min(0);

/** Section `budgets` of parley.yaml. */
export const budgetsYamlSchema = z
  .array(
    z
      .strictObject({
        tenant: z.string().min(1).default("default"),
        scope: z.enum(SCOPE_KINDS),
        id: z.string().min(1).optional(),
        period: z.enum(["hour", "day", "month"]),
        limit_micro_usd: limit.optional(),
        limit_tokens: limit.optional(),
        dry_run: z.boolean().default(false),
      })
      .refine(({ limit_micro_usd, limit_tokens }) => limit_micro_usd !== undefined || limit_tokens !== undefined, {
        error: () => "must have limit_micro_usd, limit_tokens or both",
      })
      .refine(({ scope, id }) => scope === "tenant" || id !== undefined, {
        error: () => 'must have an id; "*" gives each one a budget for itself',
      })
      .refine(({ scope, id }) => scope !== "tenant" || id === undefined, {
        error: () => "must have no id where the scope is the tenant",
      }),
  )
  .default([]);

export function readBudgets(section: z.infer<typeof budgetsYamlSchema>): ConfiguredBudget[] {
  return section.map(({ tenant, scope, id, period, limit_micro_usd, limit_tokens, dry_run }) => ({
    tenant,
    scope: scopeName(scope, scope === "tenant" ? tenant : (id ?? EACH)),
    period,
    ...(limit_micro_usd === undefined ? {} : { limitMicroUsd: BigInt(limit_micro_usd) }),
    ...(limit_tokens === undefined ? {} : { limitTokens: BigInt(limit_tokens) }),
    dryRun: dry_run,
  }));
}
