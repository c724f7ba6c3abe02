import { expect, test } from "vitest";
import { DEFECTS, type Defect } from "./faulty-stores.ts";
import { firstToShow, TEETH } from "./teeth.ts";

// The soak finds what it is there for. The same with schedules of everything: make soak TEETH=1.

const SEEDS = Array.from({ length: 50 }, (_, index) => index + 1);

test.for(Object.entries(DEFECTS) as [Defect, string][])(
  "within 50 seeds the soak finds %s: %s",
  { timeout: 300_000 },
  async ([defect]) => {
    const report = await firstToShow(defect, { seeds: SEEDS, profile: TEETH[defect].focused });
    expect(report?.violations.map(({ property }) => property)).toEqual(
      expect.arrayContaining([expect.toSatisfy((property) => TEETH[defect].shownBy.includes(property))]),
    );
  },
);
