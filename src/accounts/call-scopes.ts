import { create } from "@bufbuild/protobuf";
import { type BudgetScope, BudgetScopeSchema } from "../../gen/parley/usage/v1/budget_pb.js";

/** Who a call is paid by. Empty `team` and `useCase`: the call has none, and no budget of that kind binds it. */
export interface CallScopes {
  readonly tenant: string;
  readonly team: string;
  readonly userId: string;
  readonly useCase: string;
  readonly sessionId: string;
}

/** Kinds of scopes, from the widest to the narrowest. */
export const SCOPE_KINDS = ["tenant", "team", "user", "use_case", "session"] as const;
export type ScopeKind = (typeof SCOPE_KINDS)[number];

/** Id of a budget for each one of a kind that has none of its own. */
export const EACH = "*";

/** A scope as it stands in keys: `<kind>:<id>`. Only the first colon divides. */
export type ScopeName = `${ScopeKind}:${string}`;

export function scopeName(kind: ScopeKind, id: string): ScopeName {
  return `${kind}:${id}`;
}

/** The kind and the id of a name that {@link scopeName} made. */
export function parseScopeName(name: string): { kind: ScopeKind; id: string } {
  const colon = name.indexOf(":");
  return { kind: name.slice(0, colon) as ScopeKind, id: name.slice(colon + 1) };
}

/** The scope that stands for each one of a scope's kind. */
export function eachOf(scope: ScopeName): ScopeName {
  return scopeName(parseScopeName(scope).kind, EACH);
}

/** All scopes that a call spends from, from the widest to the narrowest. */
export function scopesOf({ tenant, team, userId, useCase, sessionId }: CallScopes): ScopeName[] {
  const ids: Readonly<Record<ScopeKind, string>> = {
    tenant,
    team,
    user: userId,
    use_case: useCase,
    session: sessionId,
  };
  return SCOPE_KINDS.flatMap((kind) => (ids[kind] === "" ? [] : [scopeName(kind, ids[kind])]));
}

/** The scope as the contract has it. */
export function budgetScope(name: string): BudgetScope {
  const { kind, id } = parseScopeName(name);
  const field = kind === "use_case" ? "useCase" : kind;
  return create(BudgetScopeSchema, { scope: { case: field, value: id } });
}

/** The name of a scope of the contract; undefined: it names nobody. */
export function nameOfBudgetScope(scope: BudgetScope | undefined): ScopeName | undefined {
  const { case: field, value } = scope?.scope ?? {};
  if (field === undefined || value === undefined || value === "") return undefined;
  return scopeName(field === "useCase" ? "use_case" : field, value);
}
