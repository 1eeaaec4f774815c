"""An LSP whose system lets it open few files has fewer places, and says so."""

import logging

import pytest

from cromford.adapters.places import Limits
from cromford.daemon import lspd
from cromford.open_files import OWN_FILES, TooFewFiles


def test_an_lsp_with_too_few_files_warns_of_needed_and_available_and_takes_fewer_peers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = Limits().n_files
    for available, is_warned in ((needed, False), (1_024, True)):
        monkeypatch.setattr(lspd, "allow_open_files", lambda _needed, most=available: most)
        with caplog.at_level(logging.WARNING):
            limits = lspd.possible_limits(Limits())
        assert limits == Limits().within(available)
        line = f"open_files_limited needed={needed} available=1024 connections_max=512"
        assert (line in caplog.text) == is_warned


def test_an_lsp_that_could_serve_nobody_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lspd, "allow_open_files", lambda _needed: OWN_FILES)
    with pytest.raises(TooFewFiles):
        lspd.possible_limits(Limits())
