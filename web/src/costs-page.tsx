import type { Client } from "@connectrpc/connect";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { useCell } from "./cell.ts";
import { type CostsAddress, formatCostsAddress, parseCostsAddress } from "./costs-address.ts";
import { CostsControls } from "./costs-controls.tsx";
import { createCostsReader, type ShownCosts } from "./costs-reader.ts";
import { CostsRowsView, isPartOfSessions } from "./costs-rows-view.tsx";
import { CostsSummaryView } from "./costs-summary-view.tsx";
import { dimensionNames, groupName, shortTurnId } from "./costs-words.ts";
import { ProblemNote } from "./problem-note.tsx";

/** What was spent, over time and by whom, down to the calls of a turn. What is shown stands in the address. */
export function CostsPage({ usage }: { usage: Client<typeof UsageService> }) {
  const [reader] = useState(() => createCostsReader({ usage }));
  const address = useCostsAddress();
  const { shown, loading, rowsRead, problem } = useCell(reader.state);
  const heading = useRef<HTMLHeadingElement>(null);
  const where = JSON.stringify([address.group, address.session, address.turn]);
  const firstWhere = useRef(where);

  useEffect(() => {
    void reader.show(address);
  }, [formatCostsAddress(address)]);
  useEffect(() => () => reader.leave(), []);
  useLayoutEffect(() => {
    // The link that led here is gone with its table.
    if (firstWhere.current !== where) heading.current?.focus();
    firstWhere.current = where;
  }, [where]);

  // While another thing is read, nothing stands under its heading that is not of it.
  const current = shown !== undefined && isSamePlace(shown.address, address) ? shown : undefined;
  return (
    <div id="costs" class="costs" tabIndex={-1}>
      <div class="costs-inner">
        <CostsControls
          address={address}
          loading={loading}
          onRefresh={() => void reader.show(address)}
          onDownload={async () => {
            const csv = await reader.csv(address);
            if (csv !== undefined) download(csv, fileName(address));
          }}
        />
        <nav class="costs-path" aria-label="What is shown">
          <Path address={address} />
        </nav>
        <h2 ref={heading} tabIndex={-1} class="costs-heading">
          {headingOf(address)}
        </h2>
        {problem !== undefined && <ProblemNote problem={problem} />}
        <p class="hint" role="status">
          {loading && current === undefined ? readingText(rowsRead) : ""}
        </p>
        {current !== undefined && <Shown shown={current} />}
      </div>
    </div>
  );
}

function Shown({ shown }: { shown: ShownCosts }) {
  const { address, span, summary, rows, budgets } = shown;
  if (summary !== undefined)
    return <CostsSummaryView address={address} span={span} summary={summary} budgets={budgets} />;
  return <CostsRowsView address={address} rows={rows ?? []} />;
}

/** The way back up, a link each. */
function Path({ address }: { address: CostsAddress }) {
  const { range, each, by, group, session, turn } = address;
  const whole = { range, each, by };
  const ofGroup = group === undefined ? whole : { ...whole, group };
  const steps: { text: string; to: CostsAddress }[] = [{ text: "All", to: whole }];
  if (group !== undefined) steps.push({ text: groupName(by, group), to: ofGroup });
  if (session !== undefined) steps.push({ text: `Session ${session}`, to: { ...ofGroup, session } });
  if (turn !== undefined) steps.push({ text: `Turn ${shortTurnId(turn)}`, to: address });
  if (steps.length === 1) return null;
  return (
    <ol>
      {steps.map(({ text, to }, index) => (
        <li key={text}>
          {index === steps.length - 1 ? (
            <span aria-current="location">{text}</span>
          ) : (
            <a href={formatCostsAddress(to)}>{text}</a>
          )}
        </li>
      ))}
    </ol>
  );
}

function headingOf({ by, group, session, turn }: CostsAddress): string {
  const of = group === undefined || !isPartOfSessions(by) ? "" : `, ${groupName(by, group)} only`;
  if (turn !== undefined) return `Turn ${shortTurnId(turn)}${of}`;
  if (session !== undefined) return `Session ${session}${of}`;
  if (group === undefined) return "Spend";
  return group === "" ? groupName(by, group) : `${dimensionNames[by]} ${group}`;
}

function readingText(rowsRead: number): string {
  return rowsRead === 0 ? "Reading …" : `Reading … ${rowsRead.toLocaleString("en")} rows looked at`;
}

function isSamePlace(a: CostsAddress, b: CostsAddress): boolean {
  return a.by === b.by && a.group === b.group && a.session === b.session && a.turn === b.turn;
}

function useCostsAddress(): CostsAddress {
  const [hash, setHash] = useState(window.location.hash);
  useEffect(() => {
    const follow = (): void => setHash(window.location.hash);
    window.addEventListener("hashchange", follow);
    window.addEventListener("popstate", follow);
    return () => {
      window.removeEventListener("hashchange", follow);
      window.removeEventListener("popstate", follow);
    };
  }, []);
  // Whatever the address was when another page took this one's place.
  return parseCostsAddress(hash) ?? { range: "day", each: "hour", by: "team" };
}

function fileName({ range, by, group, session, turn }: CostsAddress): string {
  const parts = ["costs", range, ...(group === undefined ? [] : [by, group]), session, turn && shortTurnId(turn)];
  return `${parts
    .filter(Boolean)
    .join("-")
    .replaceAll(/[^A-Za-z0-9._-]+/g, "_")}.csv`;
}

function download(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
