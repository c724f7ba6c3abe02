import { Failure } from "../failure.ts";

/** What a caller may do. `admin` includes `usage:read`. */
export const ROLES = ["chat", "chat:on_behalf", "usage:read", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** Who calls. With AUTH_MODE=none everyone is tenant `default`, and the request says which user. */
export interface Principal {
  readonly tenant: string;
  /** The team that pays; empty: none. */
  readonly team: string;
  /** The user that the credentials prove; absent: the request names one. */
  readonly userId?: string;
  /** What the credentials are for; empty: anything. */
  readonly useCases: readonly string[];
  readonly roles: ReadonlySet<Role>;
}

export const ANYONE: Principal = Object.freeze({
  tenant: "default",
  team: "",
  useCases: Object.freeze([]),
  roles: new Set(ROLES),
});

/** What credentials say of their holder. */
export interface Claims {
  readonly tenant: string;
  readonly team: string;
  /** Empty: none. */
  readonly userId: string;
  readonly useCases: readonly string[];
  readonly roles: readonly string[];
}

/**
 * The principal that claims make. Whoever may act on behalf of users has no user of its own: each request names one.
 * Roles that are not known are left out. A string instead: why they make none.
 */
export function principalOf({ tenant, team, userId, useCases, roles }: Claims): Principal | string {
  const known = new Set(ROLES.filter((role) => roles.includes(role)));
  const onBehalf = known.has("chat:on_behalf");
  // They stand in the names of keys, where braces and slashes divide.
  if (!NAME.test(tenant)) return `the tenant ${NAME_RULE}`;
  if (team !== "" && !NAME.test(team)) return `the team ${NAME_RULE}`;
  if (!useCases.every((useCase) => NAME.test(useCase))) return `each use case ${NAME_RULE}`;
  if (userId !== "" && !isUserId(userId)) return "the user must have 1 to 256 characters and no control characters";
  if (userId === "" && known.has("chat") && !onBehalf) {
    return "chatting takes a user, or the role chat:on_behalf, with which each request names one";
  }
  return {
    tenant,
    team,
    ...(userId === "" || onBehalf ? {} : { userId }),
    useCases,
    roles: known,
  };
}

const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const NAME_RULE = "must have 1 to 64 characters of [A-Za-z0-9._-]";

function isUserId(text: string): boolean {
  return [...text].length <= 256 && text.isWellFormed() && !/\p{Cc}/u.test(text);
}

export function hasRole({ roles }: Principal, role: Role): boolean {
  return roles.has(role) || (role === "usage:read" && roles.has("admin"));
}

/** The user that a request acts for: its principal's, or the one that it names. USER_NOT_ALLOWED: it names another. */
export function actingUser({ userId: own }: Principal, userId: string): string {
  if (own !== undefined && userId !== "" && userId !== own) throw new Failure("USER_NOT_ALLOWED");
  return own ?? userId;
}

/** A request's use case; where it names none, the only one of its principal. USE_CASE_NOT_ALLOWED: the credentials are not for it. */
export function allowedUseCase({ useCases }: Principal, useCase: string): string {
  const [only, ...others] = useCases;
  if (only === undefined) return useCase;
  const wanted = useCase === "" && others.length === 0 ? only : useCase;
  if (!useCases.includes(wanted)) throw new Failure("USE_CASE_NOT_ALLOWED");
  return wanted;
}
