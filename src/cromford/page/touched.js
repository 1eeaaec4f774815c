/** Which answers an event may have changed: those are asked for again, and no others. */

const MONEY = ["balance", "balances", "payments", "forwards", "status", "paying", "invoiced", "exit_plan"];
const BUILDING = ["lobby", "factories", "status", "factory", "factory_picture"];
const FACTORIES = [...BUILDING, "time_line", "exit_plan", "exit_status", "balance", "balances"];

// By the beginning of an event's name, the first that fits. What fits none may change anything.
const RULES = [
  [/^(update|commitment|next_commitment|revocation|state_signed|adds_taken_back|htlc)_?/, MONEY],
  [/^(payment|pay|invoice|forward|hold|fee)_/, [...MONEY, "ledger"]],
  [/^(peer|lobby|attendance)_?/, ["lobby", "status", "balance", "balances", "factories"]],
  [/^(client_joined|client_left|join|wish|rebuild|rejoin|build|ban)_?/, BUILDING],
  [/^(attempt_proposed|proposal|below|root|acknowledged|ceremony|branch|exit_held|nonce)_?/, BUILDING],
  [/^(quote|price)_/, ["status", "ledger"]],
  [/^(address_issued|coins|watch)/, ["status", "exit_plan", "exit_status"]],
  [/^(block|scan)/, [...FACTORIES, "payments", "forwards", "paying"]],
];

/** The names of what an event may have changed; null for everything. */
export function touchedBy(event) {
  for (const [beginning, names] of RULES) {
    if (beginning.test(event)) return names;
  }
  return null;
}
