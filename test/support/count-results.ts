import { readFileSync } from "node:fs";
import { relative, sep } from "node:path";

// Prints a line per suite (a folder of test/) of vitest's JSON report, and last `<passed> <failed>` over all. A file that
// could not be run, and a test that was skipped, count as failed: neither has shown anything.

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

const report = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as Report;
const suites = new Map<string, { passed: number; failed: number }>();
for (const file of report.testResults) {
  const [, suite = ""] = relative(process.cwd(), file.name).split(sep);
  const count = suites.get(suite) ?? { passed: 0, failed: 0 };
  suites.set(suite, count);
  for (const { status } of file.assertionResults) count[status === "passed" ? "passed" : "failed"] += 1;
  const hasFailedTest = file.assertionResults.some(({ status }) => status !== "passed");
  if (file.status !== "passed" && !hasFailedTest) count.failed += 1;
}
let passed = 0;
let failed = 0;
for (const [suite, count] of [...suites].sort(([a], [b]) => (a < b ? -1 : 1))) {
  process.stdout.write(`suite ${suite.padEnd(14)} ${count.passed} passed, ${count.failed} failed\n`);
  passed += count.passed;
  failed += count.failed;
}
process.stdout.write(`${passed} ${failed}\n`);
process.exitCode = passed + failed === 0 ? 1 : 0;
