import { afterAll, beforeAll, expect, test } from "vitest";
import { describeSchedule, scheduleOf } from "./schedule.ts";
import { runSchedule } from "./soak.ts";
import { startWorld, type World } from "./world.ts";

// The short form of `make soak`: a few seeds that have much in them.

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world.close());

test.for([2, 8, 13, 19])("all properties hold of seed %i", { timeout: 240_000 }, async (seed) => {
  const schedule = scheduleOf(seed);
  const { violations, counts } = await runSchedule(schedule, { world });
  expect(violations, `make soak SEED=${seed}\n${describeSchedule(schedule)}`).toEqual([]);
  expect(counts.turns).toBeGreaterThan(0);
});

test("a seed is one schedule", () => {
  expect(scheduleOf(7)).toEqual(scheduleOf(7));
  expect(scheduleOf(7)).not.toEqual(scheduleOf(8));
});
