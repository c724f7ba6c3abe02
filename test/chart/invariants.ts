import { OBJECT_INVARIANTS } from "./object-invariants.ts";
import { POD_INVARIANTS } from "./pod-invariants.ts";
import { ROUTING_INVARIANTS } from "./routing-invariants.ts";

/** All that holds for every render. */
export const INVARIANTS = [...OBJECT_INVARIANTS, ...POD_INVARIANTS, ...ROUTING_INVARIANTS];
