"""A factory's picture: all of it is in the document, all of the document's tree is in it."""

from typing import Any, Final

import pytest
from tests.factory.specimen import DW, STATIC
from tests.picture.documents import (
    FACTORY_ID,
    Document,
    client_document,
    life_of_tree,
    lsp_document,
    tree_for,
    with_state,
)
from tests.picture.drawn import Box, box_of, boxes, check, numbers, numbers_of, parsed, texts

from cromford import told
from cromford.factory.tree import Tree
from cromford.picture.factory import factory_picture
from cromford.picture.reading import Badge

CLIENTS_DRAWN: Final = 32  # Of more, channels are too narrow for a line each.
SIZES: Final = [1, 2, 3, 4, 8, 9, 16, 31, 32, 33, 64, 127]
HOSTILE: Final = "</text><script>alert('x')</script> \u202e\u0000\x1b[31m & \"quoted\" ]]>"
SHOWN_OF_HOSTILE: Final = "</text><script>alert('x')</script> ???[31m & \"quoted\" ]]>"


def derived(document: Document) -> set[str]:
    """Return the numbers that are no more than a difference or a count of the document's own."""
    expiry, deadline = document["expiry_height"], document["exit_deadline_height"]
    tip = expiry - document["blocks_to_expiry"]
    txs = document["transactions"]
    n_published = sum(tx["name"] in document["published"] for tx in txs)
    return {str(n) for n in (tip, deadline - tip, len(txs), n_published)}


def folded(document: Document) -> set[str]:
    """Return the sums and counts that stand for what is folded, from the document alone."""
    txs, found = document["transactions"], set()
    for layer in {tx["layer"] for tx in txs}:
        for kind in ("kickoff", "state", "static"):
            for is_leaf in (True, False):
                some = [
                    tx
                    for tx in txs
                    if tx["kind"] == kind
                    and (tx["layer"] == layer or is_leaf)
                    and is_leaf is any(o["kind"] == "channel" for o in leaf_of(tx, txs)["outputs"])
                ]
                found |= {len(some), sum(tx["input_amount_sat"] for tx in some)}
                found |= {sum(tx["name"] in document["published"] for tx in some)}
                found |= {sum(tx["name"] not in document["published"] for tx in some)}
    outputs = [output for tx in txs for output in tx["outputs"]]
    for kind in ("channel", "lstock"):
        some = [output for output in outputs if output["kind"] == kind]
        found |= {len(some), sum(output["amount_sat"] for output in some)}
    return {str(number) for number in found}


def leaf_of(tx: Document, txs: list[Document]) -> Document:
    """Return the last transaction of the same vertex."""
    if tx["kind"] != "kickoff":
        return tx
    (state,) = [one for one in txs if one["parent"] == tx["name"]]
    return state


def is_in(child: Box, parent: Box) -> bool:
    return (
        parent.x - 0.05 <= child.x
        and child.right <= parent.right + 0.05
        and child.y >= parent.bottom - 0.05
    )


def drawn(document: Document) -> Any:
    return check(factory_picture(document))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("n_clients", SIZES)
def test_every_number_of_an_lsps_picture_is_in_its_document(n_clients: int) -> None:
    document = lsp_document(tree_for(n_clients))
    root = drawn(document)
    allowed = {*numbers_of(document), *derived(document)}
    if n_clients > CLIENTS_DRAWN:
        allowed |= folded(document)
    assert numbers(texts(root)) <= allowed


@pytest.mark.parametrize("n_clients", [1, 2, 4, 8, 64])
def test_every_number_of_a_clients_picture_is_in_its_document(n_clients: int) -> None:
    for client in {1, n_clients}:
        document = client_document(tree_for(n_clients), client)
        allowed = {*numbers_of(document), *derived(document)}
        assert numbers(texts(drawn(document))) <= allowed


@pytest.mark.parametrize("kind", [DW, STATIC])
@pytest.mark.parametrize("n_clients", [3, 8, 16, 31])
def test_every_transaction_channel_and_stock_is_in_the_picture(n_clients: int, kind: Any) -> None:
    document = lsp_document(tree_for(n_clients, kind))
    root = drawn(document)
    for tx in document["transactions"]:
        facts = box_of(root, tx["name"]).facts
        delay = f"waits {tx['nsequence']} blocks" if tx["kind"] == "state" else "no delay"
        clients = [index for index in tx["signers"] if index]
        signers = f"LSP, {clients[0]}" + (f"-{clients[-1]}" if len(clients) > 1 else "")
        assert clients == list(range(clients[0], clients[-1] + 1))
        for told_of in (
            told.sat(tx["input_amount_sat"]),
            delay,
            f"fee {told.sat(tx['fee_sat'])}",
            f"{tx['vsize']:,} vB",
            f"signed by {signers};",
        ):
            assert told_of in facts
    outputs = [output for tx in document["transactions"] for output in tx["outputs"]]
    for output in outputs:
        if output["kind"] == "channel":
            facts = box_of(root, f"channel of client {output['client']}").facts
            assert told.sat(output["amount_sat"]) in facts
    stocks = [output["amount_sat"] for output in outputs if output["kind"] == "lstock"]
    shown = [box for box in boxes(root) if box.name == "liquidity stock of the LSP"]
    assert [box.facts.split(": ")[1].split(";")[0] for box in shown] == list(map(told.sat, stocks))


@pytest.mark.parametrize(
    "tree",
    [tree_for(n, kind) for n, kind in ((5, None), (8, None), (8, DW), (13, DW), (31, STATIC))],
    ids=lambda tree: f"{tree.terms.n_clients}",
)
def test_what_spends_an_output_stands_below_it_and_within_its_width(tree: Tree) -> None:
    document = lsp_document(tree)
    root = drawn(document)
    for tx in document["transactions"]:
        parent = box_of(root, tx["parent"]) if tx["parent"] else boxes(root)[0]
        assert is_in(box_of(root, tx["name"]), parent)
        for output in tx["outputs"]:
            if output["kind"] == "channel":
                channel = box_of(root, f"channel of client {output['client']}")
                assert is_in(channel, box_of(root, tx["name"]))


@pytest.mark.parametrize("n_clients", [2, 8, 32, 64])
def test_no_two_cells_lie_upon_each_other(n_clients: int) -> None:
    shown = boxes(drawn(lsp_document(tree_for(n_clients))))
    for place, one in enumerate(shown):
        for other in shown[place + 1 :]:
            is_beside = one.right <= other.x + 0.05 or other.right <= one.x + 0.05
            is_below = one.bottom <= other.y + 0.05 or other.bottom <= one.y + 0.05
            assert is_beside or is_below, (one.facts, other.facts)


def test_the_picture_of_four_clients_as_a_whole() -> None:
    """What stands where, row by row."""
    rows: dict[float, list[Box]] = {}
    for box in boxes(drawn(lsp_document(tree_for(4)))):
        rows.setdefault(box.y, []).append(box)
    assert [[box.lines for box in rows[y]] for y in sorted(rows)] == [
        [("funding output", "6,003,358 sat", "3 confirmations")],
        [("kickoff_root", "no delay", "6,003,358 sat", "LSP, 1-4")],
        [("state_root", "+432 blocks", "6,002,870 sat", "LSP, 1-4")],
        [
            ("kickoff_0", "no delay", "3,001,148 sat", "LSP, 1-2"),
            ("kickoff_1", "no delay", "3,001,148 sat", "LSP, 3-4"),
        ],
        [
            ("state_0", "+432 blocks", "3,000,660 sat", "LSP, 1-2"),
            ("state_1", "+432 blocks", "3,000,660 sat", "LSP, 3-4"),
        ],
        [(f"client {client}", "1,000,000 sat") for client in (1, 2, 3, 4)],
        [("L-stock", "1,000,000 sat")] * 2,
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [33, 64, 127])
def test_levels_with_too_many_vertices_are_told_as_counts(n_clients: int) -> None:
    document = lsp_document(tree_for(n_clients))
    root = drawn(document)
    n_leaves = len(document["leaves"])
    told_all = " ".join(texts(root))
    assert f"{n_clients:,} channels: {told.sat(1_000_000 * n_clients)}" in told_all
    if n_leaves > CLIENTS_DRAWN:
        assert f"{n_leaves} states: +432 blocks, " in told_all
    for box in boxes(root):
        assert box.width >= 10.5


@pytest.mark.sampled(0)
def test_the_largest_factory_has_a_picture_of_a_few_kilobytes() -> None:
    tree = tree_for(1_024)
    document = lsp_document(tree, moved_out=list(range(1, 200)), published=["static_root"])
    svg = factory_picture(document)
    told_all = " ".join(texts(check(svg)))
    assert "1,024 channels: 1,024,000,000 sat; 825 waiting, 199 M" in told_all
    assert "524 states: +432 blocks" in told_all
    assert len(svg) < 40_000
    check(factory_picture(client_document(tree, 1_024)))


# How it stands


def marked(**changes: Any) -> Any:
    return drawn(lsp_document(tree_for(8), **changes))


def test_what_is_on_chain_is_filled_has_a_thick_border_and_a_letter() -> None:
    root = marked(published=["static_root", "kickoff_1", "state_1"])
    for name in ("static_root", "kickoff_1", "state_1", "channel of client 3"):
        box = box_of(root, name)
        assert (box.letter, box.style) == ("C", "cell chain"), name
    for name in ("kickoff_0", "state_2", "channel of client 5"):
        assert (box_of(root, name).letter, box_of(root, name).style) == ("", "cell"), name


def test_what_is_not_signed_yet_is_dashed() -> None:
    root = marked(is_signed=False, status="building", period="waiting")
    assert (box_of(root, "state_3").letter, box_of(root, "state_3").style) == ("U", "cell unsigned")
    assert "waits for its funding" in texts(root)


@pytest.mark.parametrize("status", ["aborted", "dead", "displaced", "swept"])
def test_nothing_of_a_factory_that_never_comes_to_be_waits(status: str) -> None:
    root = marked(status=status)
    box = box_of(root, "state_3")
    assert box.letter == "X"
    assert "-void)" in box.style
    assert not [text for text in texts(root) if text.startswith("exit within")]


def test_superseded_states_are_hatched_above_the_one_that_counts() -> None:
    document = with_state(lsp_document(tree_for(8)), "state_2", 2)
    root = drawn(document)
    strip, state = box_of(root, "state_2 v2 superseded 2 older states"), box_of(root, "state_2 v2")
    assert strip.letter == "S"
    assert "-old)" in strip.style
    assert (strip.x, strip.right, strip.bottom) == (state.x, state.right, state.y)
    assert "2 older states" in state.facts
    assert Badge.SUPERSEDED.meaning in texts(root)


def test_an_older_state_that_won_is_said_and_the_newest_is_void() -> None:
    document = with_state(
        lsp_document(tree_for(8), published=["static_root", "kickoff_2", "state_2"]), "state_2", 1
    )
    box = box_of(drawn(document), "state_2 v1")
    assert box.letter == "X"
    assert "state_2 won" in box.lines
    assert "state_2 is on chain instead" in box.facts


def test_an_older_state_that_won_is_said_where_its_level_is_folded() -> None:
    tree = tree_for(64)
    published = ["static_root", "state_1_1"]
    document = with_state(lsp_document(tree, published=published), "state_1_1", 1)
    told_all = " ".join(texts(drawn(document)))
    assert "1 older state superseded" in told_all
    assert "state_1_1 is on chain in the place of state_1_1 v1" in told_all


def close_of(name: str, status: str) -> Document:
    return {"name": name, "status": status, "txid": "ab" * 32}


def test_a_close_in_a_block_ends_what_is_below_it_and_nothing_else() -> None:
    root = marked(closed=[close_of("kickoff_1", "confirmed")])
    for name in ("kickoff_1", "state_1", "channel of client 3", "channel of client 4"):
        box = box_of(root, name)
        assert box.letter == "E", name
        assert "-done)" in box.style
    for name in ("static_root", "kickoff_0", "state_2", "channel of client 5"):
        assert box_of(root, name).letter == "", name
    assert "A close of kickoff_1: confirmed, abababababab" in texts(root)


def test_a_close_that_waits_ends_nothing_yet() -> None:
    root = marked(closed=[close_of("static_root", "waiting")])
    assert {box.letter for box in boxes(root)} == {"C", ""}
    assert "A close of static_root: waiting, abababababab" in texts(root)


def test_a_close_of_one_channel_ends_that_channel() -> None:
    root = marked(closed=[close_of("channel 5", "confirmed")])
    assert box_of(root, "channel of client 5").letter == "E"
    assert box_of(root, "channel of client 6").letter == ""


def test_a_closed_factory_is_closed_all_through() -> None:
    root = marked(status="closed")
    assert {box.letter for box in boxes(root)} == {"C", "E"}


def test_channels_say_who_leaves_who_moved_and_what_failed() -> None:
    root = marked(leaving=[1], moved_out=[2], channels_failed={"3": "it broke", "4": "it, too"})
    letters = [box_of(root, f"channel of client {client}").letter for client in (1, 2, 3, 4, 5)]
    assert letters == ["L", "M", "F", "F", ""]
    assert box_of(root, "channel of client 3").facts.endswith("a channel that failed: it broke")
    assert "Client 4: it, too" in texts(root)
    for badge in (Badge.LEAVING, Badge.MOVED, Badge.FAILED):
        assert badge.meaning in texts(root)


def test_a_legend_names_what_is_in_the_picture_and_nothing_else() -> None:
    meanings = {badge.meaning for badge in Badge}
    assert meanings & set(texts(marked())) == {Badge.WAITING.meaning, Badge.ON_CHAIN.meaning}
    nothing = {**marked_document(), "funding": {**marked_document()["funding"], "confirmations": 0}}
    assert meanings & set(texts(drawn(nothing))) == {Badge.WAITING.meaning}


def marked_document(**changes: Any) -> Document:
    return lsp_document(tree_for(8), **changes)


def test_no_two_marks_look_alike_without_colour() -> None:
    """By letter, and by pattern or border: what is left where there are no colours."""
    letters = [badge.letter for badge in Badge]
    assert len(set(letters)) == len(letters)
    root = marked(
        published=["static_root"], moved_out=[1], channels_failed={"2": "broke"}, status="dead"
    )
    styles = {box.letter: box.style for box in boxes(root)}
    assert len(set(styles.values())) == len(styles) == 4


def test_what_is_under_way_is_told_in_words() -> None:
    root = marked(
        aborted="client 2: silent",
        refused=[{"name": "the funding", "txid": "11" * 32, "reason": "min relay fee not met"}],
        closing={"close_id": "1"},
        sweeping=[{"name": "funding", "outpoint": "x", "amount_sat": 4_321, "height": 14_000}],
    )
    for line in (
        "Aborted: client 2: silent",
        "Refused by the node: the funding, min relay fee not met",
        "A close is under way.",
        "To be swept: funding, 4,321 sat, from height 14,000 on",
    ):
        assert line in texts(root)
        assert line in (root.find("{http://www.w3.org/2000/svg}desc").text or "")


# Its life


@pytest.mark.parametrize(
    ("left_blocks", "words", "style"),
    [
        (13_000, "exit within 12,400 blocks", "bold"),
        (1_032, "DYING: exit within 432 blocks", "loud"),
        (601, "DYING: exit within 1 block", "loud"),
        (600, "EXIT DEADLINE PASSED, expiry in 600 blocks", "loud"),
        (1, "EXIT DEADLINE PASSED, expiry in 1 block", "loud"),
        (0, "EXPIRED at height 13,992", "loud"),
        (-5, "EXPIRED at height 13,992", "loud"),
    ],
)
def test_the_countdown_gets_louder(left_blocks: int, words: str, style: str) -> None:
    root = marked(left_blocks=left_blocks)
    (line,) = [element for element in root.iter() if element.text == words]
    assert line.get("class") == style


def test_the_tip_moves_from_left_to_right_through_the_parts_of_a_life() -> None:
    tree = tree_for(8)
    dying, deadline = life_of_tree(tree)
    expiry = tree.terms.expiry_height
    places = []
    for tip in (0, 5_000, dying - 1, dying, deadline - 1, deadline, expiry - 1, expiry, 20_000):
        root = drawn(lsp_document(tree, left_blocks=expiry - tip))
        (label,) = [e for e in root.iter() if (e.text or "") == f"now: {tip:,}"]
        places.append(float(label.get("x", "")))
    assert places == sorted(places)
    assert places[0] < places[1] < places[3] < places[5] < places[7] == places[8]


@pytest.mark.parametrize("status", ["closed", "swept", "dead", "aborted"])
def test_a_factory_that_is_over_has_no_deadline(status: str) -> None:
    told_all = texts(marked(status=status))
    assert not [text for text in told_all if text.startswith(("A active", "now:", "exit within"))]


def test_a_life_without_an_active_part_is_drawn_all_the_same() -> None:
    document = marked_document()
    terms = {**document["terms"], "build_height": document["dying_height"]}
    assert "D dying, time to move out: the exit deadline is 13,392" in texts(
        drawn({**document, "terms": terms})
    )
    nothing = {**terms, "build_height": document["expiry_height"]}
    lasts = dict.fromkeys(("dying_height", "exit_deadline_height"), document["expiry_height"])
    drawn({**document, **lasts, "blocks_to_expiry": 0, "terms": nothing})


# A client's


@pytest.mark.parametrize("client", [1, 4, 8])
def test_a_client_sees_its_own_way_out_and_no_more(client: int) -> None:
    document = client_document(tree_for(8), client)
    root = drawn(document)
    names = [tx["name"] for tx in document["transactions"]]
    leaf = (client - 1) // 2
    assert names == ["static_root", f"kickoff_{leaf}", f"state_{leaf}"]
    shown = [box.name for box in boxes(root)]
    assert shown[1:4] == names
    neighbours = [f"channel of client {2 * leaf + 1}", f"channel of client {2 * leaf + 2}"]
    assert shown[4:6] == neighbours
    assert "your channel" in texts(root)
    assert f"; you are client {client}" in " ".join(texts(root))


@pytest.mark.parametrize(
    ("changes", "letter", "other"),
    [
        ({"is_exiting": True, "status": "exiting"}, "L", ""),
        ({"status": "moved_out"}, "M", ""),
        ({"channel_failed": "it broke"}, "F", ""),
        ({"is_exiting": True, "channel_failed": "it broke"}, "L", ""),
        ({"status": "closed"}, "E", "E"),
        ({"status": "swept"}, "X", "X"),
        ({"published": ["static_root", "kickoff_0", "state_0"]}, "C", "C"),
    ],
)
def test_a_client_sees_how_its_channel_stands(
    changes: dict[str, Any], letter: str, other: str
) -> None:
    root = drawn(client_document(tree_for(8), 1, **changes))
    assert box_of(root, "channel of client 1").letter == letter
    assert box_of(root, "channel of client 2").letter == other


@pytest.mark.parametrize(
    ("txid", "words"),
    [("ab" * 32, "A close of your channel: waiting, abababababab"), (None, "")],
)
def test_a_client_sees_its_own_close(txid: str | None, words: str) -> None:
    close = {"status": "waiting" if txid else "signed", "txid": txid}
    root = drawn(client_document(tree_for(8), 1, close=close))
    assert (words or "A close of your channel: signed") in texts(root)


def test_a_client_that_knows_nothing_yet_has_a_picture_that_says_so() -> None:
    document = client_document(
        tree_for(8),
        1,
        status="building",
        terms=None,
        funding=None,
        transactions=[],
        n_clients=None,
        funding_amount_sat=None,
        expiry_height=None,
        blocks_to_expiry=None,
        exit_deadline_height=None,
        dying_height=None,
        period=None,
    )
    root = drawn(document)
    assert boxes(root) == []
    assert "building, nothing of it is known yet; you are client 1" in texts(root)


def test_a_life_whose_heights_an_older_store_does_not_tell_is_left_out() -> None:
    document = {**marked_document(), "dying_height": None}
    assert not [text for text in texts(drawn(document)) if text.startswith("now:")]


def test_a_leaf_without_stock_has_none_in_the_picture() -> None:
    document = marked_document()
    for tx in document["transactions"]:
        tx["outputs"] = [one for one in tx["outputs"] if one["kind"] != "lstock"]
    assert "L-stock" not in texts(drawn(document))
    client = client_document(tree_for(8), 1)
    client["transactions"][-1]["outputs"] = client["transactions"][-1]["outputs"][:2]
    assert "L-stock" not in texts(drawn(client))
    many = lsp_document(tree_for(64))
    for tx in many["transactions"]:
        tx["outputs"] = [one for one in tx["outputs"] if one["kind"] != "lstock"]
    assert "L-stock" not in " ".join(texts(drawn(many)))


# What others wrote


def test_hostile_words_stay_words() -> None:
    document = marked_document(
        factory_id=HOSTILE,
        status=HOSTILE,
        aborted=HOSTILE,
        channels_failed={"1": HOSTILE},
        refused=[{"name": HOSTILE, "txid": HOSTILE, "reason": HOSTILE}],
        closed=[{"name": HOSTILE, "status": HOSTILE, "txid": HOSTILE}],
        sweeping=[{"name": HOSTILE, "outpoint": HOSTILE, "amount_sat": 1, "height": 1}],
        published=[HOSTILE],
    )
    document["transactions"][1]["name"] = f"kickoff_0{HOSTILE}"
    document["transactions"][2]["parent"] = f"kickoff_0{HOSTILE}"
    root = drawn(document)
    assert f"Factory {SHOWN_OF_HOSTILE}" in texts(root)
    channel = box_of(root, "channel of client 1")
    assert channel.facts.endswith(f": {SHOWN_OF_HOSTILE}")
    for text in texts(root):
        assert text.isprintable()


def test_a_word_that_is_longer_than_a_line_is_cut_and_whole_in_the_description() -> None:
    word = "a" * 500
    root = marked(aborted=word)
    assert [text for text in texts(root) if text.startswith("aaa") and text.endswith("…")]
    assert word in (root.find("{http://www.w3.org/2000/svg}desc").text or "")


def test_the_same_document_gives_the_same_picture() -> None:
    document = marked_document(published=["static_root"], moved_out=[1], leaving=[2])
    again = dict(reversed(document.items()))
    assert factory_picture(document) == factory_picture(again)


def test_pictures_of_two_factories_may_stand_on_one_page() -> None:
    one, two = (
        {e.get("id") for e in parsed(factory_picture(marked_document(factory_id=name))).iter()}
        for name in (FACTORY_ID, "fedc" + FACTORY_ID[4:])
    )
    assert one & two == {None}
