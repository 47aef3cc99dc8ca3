"""The wallet: pure rules."""
