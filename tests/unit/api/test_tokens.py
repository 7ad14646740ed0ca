"""The tokens of a worker."""

from __future__ import annotations

from cacheop.api.tokens import client_token, peer_token, proof


def test_the_client_token_is_another_one_and_always_the_same():
    assert client_token("sesame") == client_token("sesame") != "sesame"
    assert client_token("sesame") != client_token("sesam")
    assert len(bytes.fromhex(client_token("sesame"))) == 32


def test_workers_have_a_token_of_their_own():
    assert peer_token("sesame") == peer_token("sesame")
    assert len({peer_token("sesame"), peer_token("sesam"), client_token("sesame"), "sesame"}) == 4
    assert len(bytes.fromhex(peer_token("sesame"))) == 32


def test_a_proof_is_for_one_purpose_and_one_challenge():
    found = {proof(t, p, n) for t in "ab" for p in ("client", "control") for n in ("1", "2")}
    assert len(found) == 8
