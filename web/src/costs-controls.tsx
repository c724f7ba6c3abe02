import { useState } from "preact/hooks";
import {
  COST_DIMENSIONS,
  COST_RANGES,
  type CostDimension,
  type CostRange,
  type CostsAddress,
  formatCostsAddress,
  mayBeHours,
} from "./costs-address.ts";
import { dimensionNames, rangeNames } from "./costs-words.ts";

/** Chooses what is shown. */
export function CostsControls({
  address,
  loading,
  onRefresh,
  onDownload,
}: {
  address: CostsAddress;
  loading: boolean;
  onRefresh(): void;
  onDownload(): Promise<void>;
}) {
  const [downloading, setDownloading] = useState(false);
  const isRows = address.session !== undefined || address.turn !== undefined;
  return (
    <div class="costs-controls">
      <label class="costs-field">
        Time
        <select
          value={address.range}
          onChange={(event) => {
            const range = event.currentTarget.value as CostRange;
            go({ ...address, range, each: range === "day" ? "hour" : "day" });
          }}
        >
          {COST_RANGES.map((range) => (
            <option key={range} value={range}>
              {rangeNames[range]}
            </option>
          ))}
        </select>
      </label>
      {!isRows && (
        <label class="costs-field">
          A bar is
          <select
            value={address.each}
            onChange={(event) => go({ ...address, each: event.currentTarget.value as "hour" | "day" })}
          >
            <option value="hour" disabled={!mayBeHours(address.range)}>
              an hour
            </option>
            <option value="day">a day</option>
          </select>
        </label>
      )}
      {address.group === undefined && !isRows && (
        <label class="costs-field">
          By
          <select
            value={address.by}
            onChange={(event) => go({ ...address, by: event.currentTarget.value as CostDimension })}
          >
            {COST_DIMENSIONS.map((dimension) => (
              <option key={dimension} value={dimension}>
                {dimensionNames[dimension].toLowerCase()}
              </option>
            ))}
          </select>
        </label>
      )}
      <div class="costs-actions">
        <button type="button" class="quiet-button" aria-disabled={loading} onClick={() => loading || onRefresh()}>
          Refresh
        </button>
        <button
          type="button"
          class="quiet-button"
          aria-disabled={downloading}
          onClick={() => {
            if (downloading) return;
            setDownloading(true);
            void onDownload().finally(() => setDownloading(false));
          }}
        >
          {downloading ? "Reading …" : "Download CSV"}
        </button>
      </div>
    </div>
  );
}

/** Without an entry in the browser's history for each choice on the way. */
function go(address: CostsAddress): void {
  window.location.replace(formatCostsAddress(address));
}
