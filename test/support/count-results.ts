import { readFileSync } from "node:fs";
import { relative, sep } from "node:path";

// Prints a line per suite (a folder of test/) of vitest's JSON report, a line per test that failed with why, and last
// `<passed> <failed>` over all. A file that could not be run, and a test that was skipped, count as failed: neither has
// shown anything.

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    /** Why the file could not be run. */
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

const report = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as Report;
const suites = new Map<string, { passed: number; failed: number }>();
const failures: string[] = [];
for (const file of report.testResults) {
  const path = relative(process.cwd(), file.name);
  const [, suite = ""] = path.split(sep);
  const count = suites.get(suite) ?? { passed: 0, failed: 0 };
  suites.set(suite, count);
  const failed = file.assertionResults.filter(({ status }) => status !== "passed");
  count.passed += file.assertionResults.length - failed.length;
  count.failed += failed.length;
  failures.push(
    ...failed.map(({ fullName, status, failureMessages }) => `${path}: ${fullName}: ${failureMessages[0] ?? status}`),
  );
  if (file.status !== "passed" && failed.length === 0) {
    count.failed += 1;
    failures.push(`${path}: ${file.message}`);
  }
}
let passed = 0;
let failed = 0;
for (const [suite, count] of [...suites].sort(([a], [b]) => (a < b ? -1 : 1))) {
  process.stdout.write(`suite ${suite.padEnd(14)} ${count.passed} passed, ${count.failed} failed\n`);
  passed += count.passed;
  failed += count.failed;
}
for (const failure of failures) process.stdout.write(`FAILED ${failure.split("\n")[0]}\n`);
process.stdout.write(`${passed} ${failed}\n`);
process.exitCode = passed + failed === 0 ? 1 : 0;
