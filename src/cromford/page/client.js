/** The page of a client. */

import { alarmsPanel, clientAlarms } from "./alarms.js";
import { balancePanel } from "./balance.js";
import { announce } from "./dom.js";
import { exitPanel } from "./exit.js";
import { msat } from "./format.js";
import { begin } from "./frame.js";
import { historyPanel } from "./history.js";
import { invoicePanel } from "./invoice.js";
import { ownFactoryPanel } from "./own_factory.js";
import { payPanel } from "./pay.js";

begin((live) => {
  live.add("factories", "/v1/factories");
  alarmsPanel(live, clientAlarms);
  balancePanel(live);
  invoicePanel(live);
  payPanel(live);
  historyPanel(live);
  ownFactoryPanel(live);
  exitPanel(live);
  live.listen((event) => {
    if (event.event === "invoice_paid") announce(`Received ${msat(event.amount_msat)}.`);
  });
});
