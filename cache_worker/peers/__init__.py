"""Nodes give each other what they have: docs/protocol.md, "Peers"."""
