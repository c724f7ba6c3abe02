import { UsageDimension, type UsageFilter } from "../gen/parley/usage/v1/usage_service_pb.js";
import type { UsageFilters } from "../src/accounts/usage-query.ts";
import type { WrongFields } from "../src/failure.ts";

/** Values of one filter: as many as somebody picks by hand. */
const MOST_VALUES = 100;
const VALUE_CHARACTERS = 256;

/** Reads the filters of a request by somebody of a tenant, and says what is wrong with them. */
export function readUsageFilters(
  wanted: readonly Pick<UsageFilter, "dimension" | "values">[],
  { tenant, wrong }: { readonly tenant: string; readonly wrong: WrongFields },
): UsageFilters {
  const filters = new Map<UsageDimension, ReadonlySet<string>>();
  for (const [index, { dimension, values }] of wanted.entries()) {
    const [ofDimension, ofValues] = [`filters[${index}].dimension`, `filters[${index}].values`];
    wrong.unless(isDimension(dimension), ofDimension, "must be a value of UsageDimension");
    wrong.unless(!filters.has(dimension), ofDimension, "must not be that of another filter");
    const fewEnough = values.length >= 1 && values.length <= MOST_VALUES;
    wrong.unless(fewEnough, ofValues, `must be 1 to ${MOST_VALUES} values`);
    const shortEnough = values.every((value) => value.length <= VALUE_CHARACTERS);
    wrong.unless(shortEnough, ofValues, `must have at most ${VALUE_CHARACTERS} characters each`);
    const isOwn = dimension !== UsageDimension.TENANT || values.every((value) => value === tenant);
    wrong.unless(isOwn, ofValues, "must be the caller's own tenant");
    filters.set(dimension, new Set(values));
  }
  return filters;
}

/** Whether it names something; UNSPECIFIED and values of newer releases do not. */
export function isDimension(dimension: UsageDimension): boolean {
  return dimension !== UsageDimension.UNSPECIFIED && UsageDimension[dimension] !== undefined;
}
