import { describe, expect, test } from "vitest";
import { Failure } from "../../src/failure.ts";
import {
  ANYONE,
  actingUser,
  allowedUseCase,
  type Claims,
  hasRole,
  type Principal,
  principalOf,
} from "../../src/identity/principal.ts";

const claims: Claims = { tenant: "acme", team: "red", userId: "ann", useCases: [], roles: ["chat"] };

function principal(more: Partial<Claims> = {}): Principal {
  const made = principalOf({ ...claims, ...more });
  if (typeof made === "string") throw new Error(made);
  return made;
}

function reasonOf(work: () => unknown): string {
  try {
    work();
    return "agreed";
  } catch (error) {
    return error instanceof Failure ? error.reason : "an error";
  }
}

describe("claims", () => {
  test("make a principal; roles that are not known are left out", () => {
    expect(principal({ roles: ["chat", "openid", "usage:read"], useCases: ["help"] })).toEqual({
      tenant: "acme",
      team: "red",
      userId: "ann",
      useCases: ["help"],
      roles: new Set(["chat", "usage:read"]),
    });
  });

  test("with chat:on_behalf leave the user to the requests", () => {
    expect(principal({ roles: ["chat", "chat:on_behalf"] }).userId).toBeUndefined();
  });

  test.each([
    [{ tenant: "" }, "tenant"],
    [{ tenant: "a}b" }, "tenant"],
    [{ tenant: "a/b" }, "tenant"],
    [{ team: "a b" }, "team"],
    [{ useCases: ["ok", "not ok"] }, "use case"],
    [{ userId: "x".repeat(257) }, "user"],
    [{ userId: "a\nb" }, "user"],
    [{ userId: "\ud800" }, "user"],
    [{ userId: "" }, "chat:on_behalf"],
  ])("%j make none, and say why", (wrong, word) => {
    expect(principalOf({ ...claims, ...wrong })).toContain(word);
  });

  test("that only read usage need no user", () => {
    expect(principal({ userId: "", roles: ["usage:read"] }).userId).toBeUndefined();
  });
});

describe("a request", () => {
  test("of a bound user acts for that user, and for no other", () => {
    expect(actingUser(principal(), "")).toBe("ann");
    expect(actingUser(principal(), "ann")).toBe("ann");
    expect(reasonOf(() => actingUser(principal(), "bob"))).toBe("USER_NOT_ALLOWED");
  });

  test("acts for the user that it names where the credentials settle none", () => {
    expect(actingUser(principal({ roles: ["chat", "chat:on_behalf"] }), "bob")).toBe("bob");
    expect(actingUser(ANYONE, "bob")).toBe("bob");
  });

  test("has a use case of the credentials', the only one where it names none", () => {
    const one = principal({ useCases: ["help"] });
    const two = principal({ useCases: ["help", "sales"] });
    expect(allowedUseCase(ANYONE, "x")).toBe("x");
    expect(allowedUseCase(one, "")).toBe("help");
    expect(allowedUseCase(two, "sales")).toBe("sales");
    for (const [who, useCase] of [
      [one, "sales"],
      [two, ""],
      [two, "other"],
    ] as const) {
      expect(reasonOf(() => allowedUseCase(who, useCase))).toBe("USE_CASE_NOT_ALLOWED");
    }
  });
});

test("an admin may read usage, and nobody may what its roles do not say", () => {
  expect(hasRole(principal({ roles: ["admin"] }), "usage:read")).toBe(true);
  expect(hasRole(principal({ roles: ["admin"] }), "chat")).toBe(false);
  expect(hasRole(principal({ roles: ["usage:read"] }), "admin")).toBe(false);
  expect(hasRole(ANYONE, "admin")).toBe(true);
});
