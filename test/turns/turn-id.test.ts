import { describe, expect, it } from "vitest";
import { newTurnRef, parseTurnId } from "../../src/turns/turn-id.ts";

describe("a turn's id", () => {
  it("names its session", () => {
    const ref = newTurnRef({ tenant: "default", sessionId: "a.b-c_d" });
    expect(parseTurnId(ref.turnId)).toEqual(ref);
  });

  it("is new each time", () => {
    const session = { tenant: "default", sessionId: "s" };
    expect(newTurnRef(session).turnId).not.toBe(newTurnRef(session).turnId);
  });

  it.each([
    "",
    "x",
    "a.b.c",
    "ZGVmYXVsdC9z.short",
    "ZGVmYXVsdC9z.AAAAAAAAAAAAAAAA.0",
    "!!!.AAAAAAAAAAAAAAAA",
    `${btoa("default").replaceAll("=", "")}.AAAAAAAAAAAAAAAA`,
    `${btoa("a/b/c").replaceAll("=", "")}.AAAAAAAAAAAAAAAA`,
    `${btoa("a/b}c").replaceAll("=", "")}.AAAAAAAAAAAAAAAA`,
  ])("is not %j", (forged) => {
    expect(parseTurnId(forged)).toBeUndefined();
  });
});
