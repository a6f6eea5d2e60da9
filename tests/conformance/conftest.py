"""Other people's suites: their markers, and their warnings, which are not ours to answer for."""


def pytest_configure(config):
    for marker in ("slow", "array_api_backends", "skip_xp_backends", "xfail_xp_backends"):
        config.addinivalue_line("markers", f"{marker}: scipy's own")
