import { expect, test } from "vitest";
import { CleanupError, createLifecycle } from "../../src/platform/lifecycle.ts";

test("cleanups run one after another, last in, first out", async () => {
  const lifecycle = createLifecycle();
  const events: string[] = [];
  for (const name of ["first", "second", "third"]) {
    lifecycle.onClose(name, async () => {
      events.push(`${name} begins`);
      await Promise.resolve();
      events.push(`${name} ends`);
    });
  }
  await lifecycle.close();
  expect(events).toEqual(["third", "second", "first"].flatMap((name) => [`${name} begins`, `${name} ends`]));
});

test("closing twice runs each cleanup once", async () => {
  const lifecycle = createLifecycle();
  let runs = 0;
  lifecycle.onClose("counted", () => {
    runs++;
  });
  expect(lifecycle.close()).toBe(lifecycle.close());
  await lifecycle.close();
  expect(runs).toBe(1);
});

test("a cleanup that fails stops no other, and all failures are told by name", async () => {
  const lifecycle = createLifecycle();
  const ran: string[] = [];
  const cause = new Error("socket in use");
  lifecycle.onClose("store", () => {
    ran.push("store");
    throw cause;
  });
  lifecycle.onClose("server", async () => {
    ran.push("server");
    throw new Error("not listening");
  });
  lifecycle.onClose("logs", () => {
    ran.push("logs");
  });
  const error = await lifecycle.close().catch((caught: unknown) => caught);
  expect(ran).toEqual(["logs", "server", "store"]);
  expect(error).toBeInstanceOf(AggregateError);
  const { errors } = error as AggregateError;
  expect(errors.map((each) => each instanceof CleanupError && each.cleanup)).toEqual(["server", "store"]);
  expect(errors[1].cause).toBe(cause);
});

test("a cleanup that hangs is given up at its deadline, and a late failure of it is no unhandled rejection", async () => {
  const lifecycle = createLifecycle();
  const ran: string[] = [];
  const hang = Promise.withResolvers<void>();
  lifecycle.onClose("store", () => {
    ran.push("store");
  });
  lifecycle.onClose("hanging", () => hang.promise, { deadlineMs: 10 });
  await expect(lifecycle.close()).rejects.toThrow("hanging: not done after 10 ms");
  expect(ran).toEqual(["store"]);
  hang.reject(new Error("too late to matter"));
  await expect(hang.promise).rejects.toThrow();
});

test("a cleanup registered while closing still runs", async () => {
  const lifecycle = createLifecycle();
  const ran: string[] = [];
  lifecycle.onClose("earlier", () => {
    ran.push("earlier");
  });
  lifecycle.onClose("server", () => {
    lifecycle.onClose("late connection", () => {
      ran.push("late connection");
    });
  });
  await lifecycle.close();
  expect(ran).toEqual(["late connection", "earlier"]);
});
