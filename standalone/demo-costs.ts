import { runUntilSignal } from "../src/platform/process.ts";
import { startCostsDemo } from "./costs-demo.ts";

// What the Costs page looks like where people work: three paying teams, four models and two releases, an hour of their
// traffic in a minute, after the day before in passing.

await runUntilSignal({
  async start() {
    const seconds = Number(process.env.DEMO_SECONDS || 60);
    const demo = await startCostsDemo({ env: process.env });
    process.stdout.write("\n  Three teams work: the day before in passing …\n");
    await demo.dayBefore();
    process.stdout.write(`  … and ${seconds === 60 ? "an hour" : `${seconds} minutes`} in ${seconds} s …\n`);
    await demo.lastHour(seconds);
    const { turns, calls, costMicroUsd } = await demo.sum();
    process.stdout.write(
      [
        `  ${turns} turns, ${calls} model calls, ${costMicroUsd} millionths of a US dollar`,
        "",
        `  Costs:    ${demo.url}/#/costs`,
        `  Usage:    ${demo.usageUrl}`,
        "",
        "  The model is simulated, and the ledger is gone when this ends (Ctrl+C).",
        "",
        "",
      ].join("\n"),
    );
    return demo;
  },
});
