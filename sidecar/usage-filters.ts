import { UsageDimension, type UsageFilter } from "../gen/parley/usage/v1/usage_service_pb.js";
import type { UsageFilters } from "../src/accounts/usage-query.ts";

/** Values of one filter: as many as somebody picks by hand. */
const MOST_VALUES = 100;
const VALUE_CHARACTERS = 256;

/** What is wrong with a field of a request; never what the request said. */
export interface WrongField {
  readonly field: string;
  readonly description: string;
}

/** Reads the filters of a request by somebody of a tenant, and says what is wrong with them. */
export function readUsageFilters(
  wanted: readonly Pick<UsageFilter, "dimension" | "values">[],
  tenant: string,
): { readonly filters: UsageFilters; readonly wrong: readonly WrongField[] } {
  const filters = new Map<UsageDimension, ReadonlySet<string>>();
  const wrong = wanted.flatMap(({ dimension, values }, index) => {
    const field = `filters[${index}]`;
    const isTwice = filters.has(dimension);
    filters.set(dimension, new Set(values));
    const isOwn = dimension !== UsageDimension.TENANT || values.every((value) => value === tenant);
    return [
      ...wrongUnless(isDimension(dimension), `${field}.dimension`, "must be a value of UsageDimension"),
      ...wrongUnless(!isTwice, `${field}.dimension`, "must not be that of another filter"),
      ...wrongUnless(
        values.length >= 1 && values.length <= MOST_VALUES,
        `${field}.values`,
        `must be 1 to ${MOST_VALUES} values`,
      ),
      ...wrongUnless(
        values.every((value) => value.length <= VALUE_CHARACTERS),
        `${field}.values`,
        `must have at most ${VALUE_CHARACTERS} characters each`,
      ),
      ...wrongUnless(isOwn, `${field}.values`, "must be the caller's own tenant"),
    ];
  });
  return { filters, wrong };
}

/** Whether it names something; UNSPECIFIED and values of newer releases do not. */
export function isDimension(dimension: UsageDimension): boolean {
  return dimension !== UsageDimension.UNSPECIFIED && UsageDimension[dimension] !== undefined;
}

function wrongUnless(right: boolean, field: string, description: string): WrongField[] {
  return right ? [] : [{ field, description }];
}
