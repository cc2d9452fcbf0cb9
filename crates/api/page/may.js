// What whoever is logged in may do. What is not offered disappoints nobody; what is asked for all the same the server refuses.

import { look } from "./live.js";

const ROLES = ["read", "operate", "admin"];

/** Whether the session's token has this role, or a greater one; until that is known, no. */
export function may(role) {
  const own = look("/session", { every: 60_000 }).data?.role;
  return ROLES.includes(own) && ROLES.indexOf(own) >= ROLES.indexOf(role);
}
