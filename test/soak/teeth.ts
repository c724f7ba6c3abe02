import type { Defect } from "./faulty-stores.ts";
import { EVERYTHING, KILLS, PAUSES, type Profile, RETRIES, scheduleOf } from "./schedule.ts";
import { runSchedule, type SeedReport } from "./soak.ts";
import type { Property } from "./violation.ts";
import { startWorld } from "./world.ts";

/** With a defect things may stand still for ever: the first sign is enough, in milliseconds. */
const PATIENCE_MS = 8_000;

/** What shows a defect: with `every` schedule, or soonest with a `focused` one. */
export const TEETH: Readonly<Record<Defect, { readonly shownBy: readonly Property[]; readonly focused: Profile }>> = {
  "no-fencing": {
    shownBy: ["unsaid", "duplicate", "gap", "terminal", "text", "usage", "history", "tool"],
    focused: PAUSES,
  },
  "append-not-awaited": { shownBy: ["unsaid", "gap", "duplicate"], focused: KILLS },
  "no-deduplication": { shownBy: ["key"], focused: RETRIES },
  "caps-unheeded": { shownBy: ["cap"], focused: RETRIES },
  "charges-twice": { shownBy: ["bill"], focused: RETRIES },
  "no-journal": { shownBy: ["repeated call", "duplicate", "tool"], focused: KILLS },
};

/** Runs seeds in a world with a defect until one of them shows it. Undefined: none does. */
export async function firstToShow(
  defect: Defect,
  { seeds, profile = EVERYTHING }: { seeds: readonly number[]; profile?: Profile },
): Promise<SeedReport | undefined> {
  const { shownBy } = TEETH[defect];
  const world = await startWorld({ defect });
  try {
    for (const seed of seeds) {
      const report = await runSchedule(scheduleOf(seed, profile), { world, patienceMs: PATIENCE_MS });
      if (report.violations.some(({ property }) => shownBy.includes(property))) return report;
    }
    return undefined;
  } finally {
    await world.close();
  }
}
