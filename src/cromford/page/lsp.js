/** The page of an LSP. */

import { alarmsPanel, lspAlarms } from "./alarms.js";
import { capitalPanel } from "./capital.js";
import { ceremonyPanel } from "./ceremony.js";
import { channelsPanel } from "./channels.js";
import { announce } from "./dom.js";
import { factoriesPanel } from "./factories.js";
import { forwardsPanel } from "./forwards.js";
import { begin } from "./frame.js";
import { historyPanel } from "./history.js";
import { ledgerPanel } from "./ledger.js";
import { lobbyPanel } from "./lobby.js";
import { oneFactoryPanel } from "./one_factory.js";
import { planPanel } from "./plan.js";

begin((live) => {
  live.add("factories", "/v1/factories");
  alarmsPanel(live, lspAlarms);
  capitalPanel(live);
  ceremonyPanel(live);
  lobbyPanel(live);
  factoriesPanel(live);
  oneFactoryPanel(live);
  channelsPanel(live);
  forwardsPanel(live);
  historyPanel(live);
  ledgerPanel(live);
  planPanel();
  live.listen((event) => {
    if (event.event === "funding_signed") announce("A factory was built.");
    if (event.event === "attempt_aborted") announce(`A ceremony was aborted: ${event.reason}`);
  });
});
