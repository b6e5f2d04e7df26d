"""The library with one line changed at a time: some test must fail for each, or the tests prove less than they seem to."""
