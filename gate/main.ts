import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { checkGate, describeGate, EXIT_CODES } from "./check.ts";
import { type GateFile, GateFileError, parseGateFile } from "./conditions.ts";
import { PrometheusError, prometheus } from "./prometheus.ts";
import { renderArgo, renderFlagger, renderGateRules } from "./render.ts";

// `parley gate`: may the canary have more traffic?
const USAGE = `Usage: parley gate [check] --prometheus URL [--file gate.yaml] [--json]
       parley gate rule | flagger | argo [--file gate.yaml]

  check     Asks Prometheus whether the canary is worse than stable. Exit code 0: no; 1: yes; 2: too few samples, or
            Prometheus does not answer. A token in PROMETHEUS_TOKEN is sent along.
  rule      The same conditions as Prometheus alert rules,
  flagger   as Flagger MetricTemplates,
  argo      as an Argo Rollouts AnalysisTemplate.

  --file    Conditions; - reads standard input. Default: those that Parley brings (gate/gate.yaml).
`;

/** Exit code of a call or a file that makes no sense: sysexits' EX_USAGE, so that none is taken for an answer. */
const EXIT_USAGE = 64;

const RENDERERS = new Map([
  ["rule", (file: GateFile) => renderGateRules(file)],
  ["flagger", renderFlagger],
  ["argo", renderArgo],
]);

process.exitCode = await main(process.argv.slice(2));

async function main(args: string[]): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        file: { type: "string", default: join(import.meta.dirname, "gate.yaml") },
        prometheus: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) return say(USAGE);
    const [command = "check", ...rest] = positionals;
    const render = RENDERERS.get(command);
    if (rest.length > 0 || (command !== "check" && render === undefined)) return complain(USAGE);
    const file = parseGateFile(readFileSync(values.file === "-" ? 0 : values.file, "utf8"));
    if (render !== undefined) return say(render(file));

    const url = values.prometheus ?? process.env.PROMETHEUS_URL ?? "";
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
      return complain("--prometheus is missing, or no http:// or https:// URL.\n");
    const result = await checkGate(file, prometheus({ url, token: process.env.PROMETHEUS_TOKEN || undefined }));
    say(values.json ? `${JSON.stringify(result)}\n` : describeGate(result));
    return EXIT_CODES[result.verdict];
  } catch (error) {
    if (error instanceof PrometheusError) {
      process.stderr.write(`${error.message}\n`);
      return EXIT_CODES.unknown;
    }
    const what = error instanceof Error ? error.message : "That did not work.";
    return complain(error instanceof GateFileError ? `The file of conditions cannot be used:\n${what}\n` : `${what}\n`);
  }
}

function say(text: string): number {
  process.stdout.write(text);
  return 0;
}

function complain(text: string): number {
  process.stderr.write(text);
  return EXIT_USAGE;
}
