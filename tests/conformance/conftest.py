"""Suites of other projects: their markers, and their warnings, which are ignored."""


def pytest_configure(config):
    for marker in ("slow", "array_api_backends", "skip_xp_backends", "xfail_xp_backends"):
        config.addinivalue_line("markers", f"{marker}: a marker of scipy's suite")
