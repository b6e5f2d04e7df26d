"""Quarantines that end by evidence, end to end: real proxies, a log on disk, replicas and clients on real sockets."""
