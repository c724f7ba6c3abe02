import { describe, expect, test } from "vitest";
import { Failure } from "../../src/failure.ts";
import { ANYONE, agreed, type Claims, hasRole, type Principal, principalOf } from "../../src/identity/principal.ts";

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
  test.each([
    [
      { userId: "", useCase: "" },
      { userId: "ann", useCase: "" },
    ],
    [
      { userId: "ann", useCase: "any" },
      { userId: "ann", useCase: "any" },
    ],
  ])("%j of a bound user acts as %j", (request, expected) => {
    expect(agreed(principal(), request)).toEqual(expected);
  });

  test("that names another user is refused, unless it may act on behalf", () => {
    expect(reasonOf(() => agreed(principal(), { userId: "bob", useCase: "" }))).toBe("USER_NOT_ALLOWED");
    const onBehalf = principal({ roles: ["chat", "chat:on_behalf"] });
    expect(agreed(onBehalf, { userId: "bob", useCase: "" }).userId).toBe("bob");
    expect(agreed(ANYONE, { userId: "bob", useCase: "x" })).toEqual({ userId: "bob", useCase: "x" });
  });

  test("has a use case of the credentials', the only one where it names none", () => {
    const one = principal({ useCases: ["help"] });
    const two = principal({ useCases: ["help", "sales"] });
    expect(agreed(one, { userId: "", useCase: "" }).useCase).toBe("help");
    expect(agreed(two, { userId: "", useCase: "sales" }).useCase).toBe("sales");
    for (const [who, useCase] of [
      [one, "sales"],
      [two, ""],
      [two, "other"],
    ] as const) {
      expect(reasonOf(() => agreed(who, { userId: "", useCase }))).toBe("USE_CASE_NOT_ALLOWED");
    }
  });
});

test("an admin may read usage, and nobody may what its roles do not say", () => {
  expect(hasRole(principal({ roles: ["admin"] }), "usage:read")).toBe(true);
  expect(hasRole(principal({ roles: ["admin"] }), "chat")).toBe(false);
  expect(hasRole(principal({ roles: ["usage:read"] }), "admin")).toBe(false);
  expect(hasRole(ANYONE, "admin")).toBe(true);
});
