"""Daemons that fall silent, come back as others, or change their mind: what the page does then."""

import re
from typing import Any

import pytest
from tests.browser.chromium import Browser, needs_browser
from tests.browser.scripted import another_tab, open_page, play

pytestmark = [needs_browser, pytest.mark.timeout(600)]

# One thing that is followed, and every state that the page was told of.
LIVE = """
  const {Live} = await import("/page/live.js");
  const states = [];
  const live = new Live(({state}) => states.at(-1) === state || states.push(state));
"""


async def told_by(at: Browser, script: str, *, expected: str = "") -> Any:
    """Return what a script says that runs in a client's page, which does nothing by itself."""
    sight = await open_page(at)
    sight.expected += [expected] if expected else []
    return await sight.page.evaluate(f"async () => {{ {script} }}")


def test_an_answer_that_never_comes_is_not_waited_for_twice() -> None:
    """What hangs in a dead connection is asked for again by the next, before that is live."""

    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            LIVE
            + """
            let n = 0;
            reply = follows(() => [json(1), never(), json(3)][n++]);
            live.add("a", "/v1/a");
            const shown = [];
            live.onConnection = ({state}) => state === "live" && shown.push(live.value("a"));
            live.start();
            await until(() => live.value("a") === 1 && streams.length === 1);
            live.refresh("a");
            await until(() => n === 2);
            streams[0].close();
            await until(() => streams.length === 2);
            return [n, live.value("a"), shown.at(-1)];
            """,
        )
        assert told == [3, 3, 3]

    play(scene)


def test_what_fails_again_and_again_is_asked_for_less_and_less_often() -> None:
    """Neither one answer that is cut off nor a stream that is refused makes a storm."""

    async def scene(at: Browser) -> None:
        for what in (
            "follows(() => lost())",
            """({path}) => path === "/v1/events?after=1-1"
              ? refused("too_many_followers", 429) : json({cursor: "1-1"})""",
        ):
            n_asked = await told_by(
                at,
                LIVE
                + f"""
                reply = {what};
                live.add("a", "/v1/a");
                live.start();
                await pause(4_000);
                live.stop();
                return asked.filter(({{path}}) => path === "/v1/a").length;
                """,
            )
            assert 2 <= n_asked <= 4, what

    play(scene)


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    async def scene(at: Browser) -> None:
        value = await told_by(
            at,
            LIVE
            + """
            let n = 0;
            reply = follows(() => json(++n));
            live.add("a", "/v1/a");
            live.start();
            await until(() => streams.length === 1);
            const now = Date.now;
            Date.now = () => now() - 3_600_000;
            live.refresh("a");
            await until(() => n === 2);
            live.refresh("a");
            await pause(3_000);
            return live.value("a");
            """,
        )
        assert value == 3

    play(scene)


def test_what_cannot_be_drawn_says_so_and_keeps_nothing_else_from_being_drawn() -> None:
    """As where the daemon is of another version than the page."""

    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            LIVE
            + """
            const {panel} = await import("/page/panel.js");
            let n = 0;
            reply = follows(() => json(++n));
            live.add("a", "/v1/a");
            panel("history", live, ["a"], (value) => {
              if (value > 1) throw new TypeError("as of another version");
              return `as of ${value}`;
            });
            panel("exit", live, ["a"], (value) => `as of ${value}`);
            live.start();
            await until(() => streams.length === 1);
            live.refresh("a");
            await until(() => live.value("a") === 2);
            return [...document.querySelectorAll(".body")].map((one) => one.textContent);
            """,
            expected="as of another version",
        )
        broken, whole = told
        assert broken.startswith("This cannot be shown. Load the page again")
        assert whole == "as of 2"

    play(scene)


def test_an_answer_to_the_key_of_before_ends_no_session_of_another_tab() -> None:
    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            """
            const {get, SIGNED_OUT, Unreachable} = await import("/page/api.js");
            let n = 0;
            document.addEventListener(SIGNED_OUT, () => { n += 1; });
            localStorage.setItem("cromford-key", "first");
            reply = () => {
              localStorage.setItem("cromford-key", "second");
              return refused("session_unknown", 401);
            };
            const error = await get("/v1/status").catch((error) => error);
            const second = [error instanceof Unreachable, n];
            await get("/v1/status").catch(() => null);
            return [...second, n];
            """,
        )
        assert told == [True, 0, 1]

    play(scene)


PAYING = """
  const {payPanel} = await import("/page/pay.js");
  const {setSession} = await import("/page/session.js");
  const live = {add() {}, watch() {}, refresh() {}};
  setSession({name: "t", scopes: ["read", "receive", "spend"]});
  payPanel(live);
  document.getElementById("main").hidden = false;
  const plan = {
    status: "planned", direction: "out", payment_hash: "11".repeat(32), payee: "02".repeat(33),
    amount_msat: 1_000_000, fee_msat: 2_000, total_msat: 1_002_000, description: "", label: "",
    factory_id: "33".repeat(32), expires_at: 2e9, htlc_expiry_height: 900,
  };
  const sent = [];
  const pays = async (paid, found) => {
    reply = ({verb, body}) => {
      if (verb === "GET") return found();
      sent.push(body);
      return body.dry_run ? json(plan) : paid();
    };
    document.getElementById("pay-invoice").value = "lnbcrt1";
    document.getElementById("pay-form").requestSubmit();
    const yes = document.getElementById("pay-yes");
    await until(() => yes.checkVisibility());
    yes.click();
    await until(() => sent.length === 2 && !yes.hasAttribute("aria-disabled"));
  };
  const seen = (id) => {
    const one = document.getElementById(id);
    return one.checkVisibility() ? one.textContent : null;
  };
"""


def test_no_more_is_paid_than_what_was_shown() -> None:
    """The LSP may raise its price between the question and the answer."""

    async def scene(at: Browser) -> None:
        sent = await told_by(
            at,
            PAYING
            + """
            await pays(() => json({...plan, status: "paid", settled_at: 1}), never);
            return sent;
            """,
        )
        asked, paid = sent
        assert asked["dry_run"]
        assert paid["fee_max_msat"] == 2_000

    play(scene)


@pytest.mark.parametrize(
    ("paid", "found", "is_under_way"),
    [
        ('() => new Response("late", {status: 504})', "lost", True),
        ('() => refused("internal_error", 500)', "lost", True),
        ('() => refused("internal_error", 500)', '() => new Response("", {status: 502})', True),
        ('() => refused("fee_too_high", 409)', '() => refused("payment_not_found", 404)', False),
    ],
)
def test_a_payment_is_not_begun_only_if_the_daemon_says_so(
    paid: str, found: str, *, is_under_way: bool
) -> None:
    async def scene(at: Browser) -> None:
        script = f"await pays({paid}, {found}); return [seen('pay-status'), seen('pay-problem')];"
        status, problem = await told_by(at, PAYING + script)
        if is_under_way:
            assert (status, problem) == ("Under way: 1,002 sat.", None)
        else:
            assert (status, problem) == (None, "fee_too_high")

    play(scene)


def test_an_invoice_whose_answer_was_lost_is_asked_for_again_and_not_made_twice() -> None:
    """The same press asks for the same one until it is answered; the next one is another."""

    async def scene(at: Browser) -> None:
        sent = await told_by(
            at,
            """
            const {invoicePanel} = await import("/page/invoice.js");
            const {setSession} = await import("/page/session.js");
            setSession({name: "t", scopes: ["read", "receive"]});
            invoicePanel({add() {}, watch() {}, refresh() {}});
            const form = document.getElementById("invoice-form");
            const made = {
              payment_hash: "11".repeat(32), invoice: "lnbcrt1", amount_msat: 1_000,
              receivable_msat: 1_000, description: "", label: "", expires_at: 2e9, status: "open",
            };
            const sent = [];
            const answers = [lost, () => refused("lsp_unreachable", 503), () => json(made)];
            const press = async (description, answer) => {
              reply = ({verb, body}) => {
                if (verb === "GET") return new Response("<svg></svg>");
                sent.push(body);
                return answer();
              };
              form.elements.amount_msat.value = "1";
              form.elements.description.value = description;
              form.requestSubmit();
              await until(() => form.getAttribute("aria-busy") === "false");
            };
            for (const answer of answers) await press("coffee", answer);
            await press("coffee", () => json(made));
            await press("tea", lost);
            await press("coffee", () => json(made));
            return sent;
            """,
        )
        ids = [body["external_id"] for body in sent]
        assert ids[0] == ids[1] == ids[2]
        assert len(set(ids)) == 4
        assert all(re.fullmatch("page-[0-9a-f]{32}", one) for one in ids)

    play(scene)


def test_all_that_is_listed_is_kept_up_to_date_without_a_gap() -> None:
    """However far an entry moved down while nobody looked, and whatever became of it."""

    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            LIVE
            + """
            const {pagedPanel} = await import("/page/pages.js");
            let all = Array.from({length: 100}, (_, n) => `open ${n}`);
            reply = follows(({path}) => {
              const limit = Number(new URLSearchParams(path.split("?")[1]).get("limit"));
              return json({all: all.slice(0, limit), next: limit < all.length ? "more" : null});
            });
            pagedPanel("history", live, {
              name: "list", path: "/v1/list", entriesOf: (page) => page.all,
              draw: (entries) => entries.join("; "),
            });
            const shown = () => document.querySelector("#history .body").textContent.split("; ");
            live.start();
            await until(() => shown().length === 25);
            document.querySelector("#history button").click();
            await until(() => shown().length === 50);
            const news = Array.from({length: 40}, (_, n) => `new ${n}`);
            all = [...news, ...all.map((one) => one.replace("open", "paid"))];
            live.refresh("list");
            await until(() => shown()[0] === "new 0");
            return [shown(), document.querySelector("#history .more p").textContent];
            """,
        )
        expected = [f"new {n}" for n in range(40)] + [f"paid {n}" for n in range(10)]
        assert told == [expected, "25 more shown."]

    play(scene)


@pytest.mark.parametrize("n_shown", [0, 10])
def test_an_answer_that_is_cut_short_says_where_the_rest_is(n_shown: int) -> None:
    """To ask for more brings no more: it looked at as many factories as one answer may."""

    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            LIVE
            + f"""
            const {{pagedPanel}} = await import("/page/pages.js");
            const all = Array.from({{length: {n_shown}}}, (_, n) => `open ${{n}}`);
            reply = follows(() => json({{all, next: "more"}}));
            pagedPanel("history", live, {{
              name: "list", path: "/v1/list", entriesOf: (page) => page.all,
              draw: (entries) => `shown: ${{entries.length}}`,
            }});
            live.start();
            const text = (place) => document.querySelector(`#history ${{place}}`).textContent;
            await until(() => text(".body") === "shown: {n_shown}");
            return [text(".more p"), document.querySelector("#history button").hidden];
            """,
        )
        assert told == ["The command line shows what is older.", True]

    play(scene)


LEAVING = """
  const {exitPanel} = await import("/page/exit.js");
  const {setSession} = await import("/page/session.js");
  setSession({name: "t", scopes: ["operate"]});
  let redraw;
  const sources = [{value: null, error: null}, {value: null, error: null}];
  const live = {
    add() {}, refresh() {}, value() {},
    watch(_names, draw) { redraw = () => draw(...sources); },
  };
  exitPanel(live);
  document.getElementById("main").hidden = false;
  const planOf = (fee) => ({
    factory_id: "ab".repeat(32), n_transactions: 3, exit_blocks: 300, channel: {exit_sat: 5_000},
    fees_today: {feerate_sat_per_vb: 1, fee_sat: fee, children_sat: 0, n_coins: 0, short_sat: 0},
  });
  const shows = (plan) => {
    sources[0].value = plan;
    sources[1].value = {exiting: false, paused: false};
    redraw();
  };
  const dialog = document.getElementById("question");
  const buttons = () => [...dialog.querySelectorAll("button")];
  const press = (text) => buttons().find((one) => one.textContent === text).click();
"""


def test_what_is_agreed_to_is_what_leaving_takes_by_then() -> None:
    async def scene(at: Browser) -> None:
        told = await told_by(
            at,
            LEAVING
            + """
            reply = () => json({exiting: true, next: "wait"});
            shows(undefined);
            const start = document.getElementById("exit-start");
            const wasThere = start.checkVisibility();
            shows(planOf(1_000));
            start.click();
            await until(() => dialog.open && dialog.textContent.includes("1,000 sat"));
            shows(planOf(9_000));
            press("Leave");
            await until(() => dialog.open && dialog.textContent.includes("9,000 sat"));
            const again = [dialog.textContent.includes("It has changed"), asked.length];
            press("Leave");
            await until(() => asked.length === 1);
            return [wasThere, ...again, asked[0].body.factory_id];
            """,
        )
        assert told == [False, True, 0, "ab" * 32]

    play(scene)


# The whole page, before a daemon that knows a session, and nothing else.
DAEMON = """
  globalThis.version = "v1";
  globalThis.isThere = true;
  globalThis.reply = follows(({verb, path}) => {
    if (!isThere) return lost();
    if (verb === "HEAD") return new Response(null, {headers: {etag: version}});
    if (path === "/session" && verb === "DELETE") return json({ended: true});
    if (path === "/session") return json({name: "t", role: "client", scopes: ["read"], key: "k"});
    return never();
  });
"""


async def signed_in(at: Browser) -> Any:
    sight = await open_page(at, is_begun=True)
    await sight.page.context.add_init_script(DAEMON)
    await sight.page.reload()
    await sight.page.get_by_label("Token").fill("cromford_token")
    await sight.page.get_by_role("button", name="Sign in").click()
    await sight.page.locator("main").wait_for()
    return sight


def test_signing_out_of_one_tab_leaves_nothing_in_another() -> None:
    async def scene(at: Browser) -> None:
        first = await signed_in(at)
        second = await another_tab(at, first.page.context)
        await second.page.locator("main").wait_for()
        await first.page.get_by_role("button", name="Sign out").click()
        await second.page.locator("#sign-in-place").wait_for()
        assert not await second.page.locator("main").is_visible()

    play(scene)


def test_who_signs_out_while_nobody_answers_is_out_and_is_told_what_is_left() -> None:
    async def scene(at: Browser) -> None:
        sight = await signed_in(at)
        await sight.page.evaluate("isThere = false")
        await sight.page.get_by_role("button", name="Sign out").click()
        why = sight.page.locator("#sign-in-why", has_text="ends the session within 12 hours")
        await why.wait_for()
        assert not await sight.page.locator("main").is_visible()
        assert await sight.page.evaluate("localStorage.length") == 0

    play(scene)


def test_a_page_of_another_version_is_loaded_again_where_somebody_signs_in() -> None:
    async def scene(at: Browser) -> None:
        sight = await signed_in(at)
        await sight.page.evaluate("""() => {
          globalThis.isOld = true;
          localStorage.removeItem("cromford-key");
          dispatchEvent(new StorageEvent("storage", {key: "cromford-key"}));
          version = "v2";
        }""")
        await sight.page.get_by_label("Token").fill("cromford_token")
        # The page itself may evaluate no text, so nothing is waited for by one.
        async with sight.page.expect_event("load"):
            await sight.page.get_by_role("button", name="Sign in").click()
        await sight.page.locator("main").wait_for()
        assert not await sight.page.evaluate("Boolean(globalThis.isOld)")

    play(scene)
