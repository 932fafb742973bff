"""Pages in a real browser: Chromium, which `make test-browser` expects to be installed."""
